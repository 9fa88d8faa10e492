//! Lines that no checkpoint covers: they are read again, and kept in case Kafka lost their records.

use super::*;

/// What `site` has kept of lines that it cut off.
fn torn(site: &Site) -> String {
    let files = fs::read_dir(site.path("logs")).expect("directory").map(|entry| entry.expect("entry").path());
    let torn = files.filter(|path| path.extension().is_some_and(|extension| extension == "torn"));
    torn.map(|path| fs::read_to_string(path).expect("text")).collect()
}

#[test]
fn lines_that_no_checkpoint_covers_are_read_again_and_kept_beside() {
    let topic = crate::support::kafka::shared().topic_with(2, &[]);
    let site = Site::new(&topic);
    let interval = ("LOG_FSYNC", "interval:60000");
    let mut consumer = site.start_ready(&[interval]);
    topic.kcat(&["-P", "-p", "0"], b"{\"n\":1}\n{\"n\":2}\n");
    eventually(CATCH_UP, "both are written", || site.lines().len() == 2);
    let before = site.lines();
    consumer.kill();
    let mut consumer = site.start_ready(&[]);
    eventually(CATCH_UP, "both are written again", || site.lines().len() == 2);
    assert!(torn(&site).lines().eq(before.iter()), "{}: {}", torn(&site), consumer.stderr());
    assert!(consumer.terminate(secs(30)).success());
}

/// Power is lost on both sides: the checkpoint does not cover the lines, and Kafka does not have their records.
#[test]
fn lines_that_no_checkpoint_covers_are_kept_where_kafka_lost_them_in_the_same_epoch() {
    let cluster = alone();
    let topic = cluster.topic_with(1, &[]);
    let mut scene = Scene::new(&cluster, &topic, "auto");
    let mut consumer = scene.site.start_ready(&[scene.client, DIVERGENCE, ("LOG_FSYNC", "interval:60000")]);
    scene.post(50);
    let copy = Copy::of(&cluster);
    scene.post(100);
    scene.wait_all_logged();
    consumer.kill();
    cluster.kill(1);
    copy.restore();
    cluster.restart(1);
    let _consumer = scene.consumer(DIVERGENCE);
    let kept = torn(&scene.site);
    let kept = count(kept.lines().map(payload));
    for number in &scene.acknowledged {
        assert!(kept.contains_key(number), "event {number} is gone");
    }
}
