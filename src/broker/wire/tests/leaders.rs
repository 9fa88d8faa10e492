//! Three brokers that change the leaders of two partitions, and what is read of them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::broker::open_source;
use crate::broker::protocol::{Reader, Writer};
use crate::broker::read::source::KafkaSource;
use crate::broker::record::{Position, Record};
use crate::broker::topic::Source;
use crate::broker::trail::Trails;
use crate::broker::wire::batch::{CRC_FROM, Stamp, checksum, encode};
use crate::config::{KafkaClient, KafkaConfig, SecurityConfig};

const TOPIC: &str = "t";

fn stored(base: i64, values: &[&str], epoch: i32) -> Vec<u8> {
    let records: Vec<Record<'_>> = values.iter().map(|value| Record::new(None, value.as_bytes())).collect();
    let mut batch = encode(&records, Stamp::NONE, 5);
    batch[..8].copy_from_slice(&base.to_be_bytes());
    batch[12..16].copy_from_slice(&epoch.to_be_bytes());
    let crc = checksum(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// What all brokers say and have. Brokers are 1, 2 and 3.
struct World {
    ports: Vec<u16>,
    /// Leader and epoch of partitions 0 and 1, as the metadata say.
    leaders: Mutex<[(i32, i32); 2]>,
}

/// One batch of (base, values, epoch) that broker `id` gives out of `partition` at `offset`.
fn batch_at(id: i32, partition: i32, offset: i64) -> Vec<u8> {
    match (id, partition, offset) {
        // The old leader, which does not know that it is none any more.
        (1, 0, 0) => stored(0, &["a", "b", "c", "d"], 5),
        (3, 1, 0) => stored(0, &["x"], 1),
        (3, 1, 1) => stored(1, &["y"], 2),
        // The new one lost "c" and "d" and has others there, which are acknowledged.
        (2, 0, 2) => stored(2, &["new c", "new d"], 6),
        (2, 0, 4) => stored(4, &["new e"], 6),
        _ => Vec::new(),
    }
}

fn answer(world: &World, id: i32, key: i16, r: &mut Reader<'_>) -> Writer<'static> {
    match key {
        18 => Writer::default().i16(0).array(
            &[
                (0, 3, 8),
                (1, 4, 11),
                (2, 1, 5),
                (3, 4, 7),
                (8, 2, 5),
                (9, 2, 5),
                (10, 0, 2),
                (18, 0, 2),
                (22, 0, 1),
                (23, 3, 3),
            ],
            |w, (key, min, max)| w.i16(*key).i16(*min).i16(*max),
        ),
        3 => metadata(world),
        23 => epoch_ends(world, id, r),
        1 => fetched(id, r),
        other => panic!("request {other}"),
    }
}

fn metadata(world: &World) -> Writer<'static> {
    let leaders = *world.leaders.lock().expect("whole");
    let ids: Vec<i32> = (1..=world.ports.len() as i32).collect();
    Writer::default()
        .i32(0)
        .array(&ids, |w, id| w.i32(*id).str("127.0.0.1").i32(world.ports[*id as usize - 1].into()).i16(-1))
        .i16(-1)
        .i32(1)
        .array(&[TOPIC], |w, topic| {
            w.i16(0).str(topic).i8(0).array(&[0, 1], |w, partition| {
                let (leader, epoch) = leaders[*partition as usize];
                w.i16(0).i32(*partition).i32(leader).i32(epoch).i32(0).i32(0).i32(0)
            })
        })
}

/// Each answers as the leader in the epoch that it knows of.
fn epoch_ends(world: &World, id: i32, r: &mut Reader<'_>) -> Writer<'static> {
    let _replica = r.i32().expect("replica");
    let asked = r
        .array(|r| {
            let _ = r.str()?;
            r.array(|r| Ok((r.i32()?, r.i32()?, r.i32()?)))
        })
        .expect("asked")
        .concat();
    Writer::default().i32(0).array(&[TOPIC], |w, topic| {
        w.str(topic).array(&asked, |w, (partition, current, epoch)| {
            let (code, found, end) = match (id, *partition, *current) {
                (1, 0, 5) => (0, 5, 4),
                (2, 0, 6) if *epoch >= 6 => (0, 6, 5),
                (2, 0, 6) => (0, 5, 2),
                (3, 1, current) if current == world.leaders.lock().expect("whole")[1].1 => {
                    (0, *epoch, i64::from(*epoch))
                }
                _ => (74, -1, -1),
            };
            w.i16(code).i32(*partition).i32(found).i64(end)
        })
    })
}

fn fetched(id: i32, r: &mut Reader<'_>) -> Writer<'static> {
    let _ = (
        r.i32().expect("replica"),
        r.i32().expect("wait"),
        r.i32().expect("min"),
        r.i32().expect("max"),
        r.i8(),
        r.i64().expect("session"),
    );
    let asked = r
        .array(|r| {
            let _ = r.str()?;
            r.array(|r| Ok((r.i32()?, r.i32()?, r.i64()?, r.i64()?, r.i32()?)))
        })
        .expect("asked")
        .concat();
    Writer::default().i32(0).i16(0).i32(0).array(&[TOPIC], |w, topic| {
        w.str(topic).array(&asked, |w, (partition, _, offset, ..)| {
            w.i32(*partition).i16(0).i64(5).i64(5).i64(0).i32(0).bytes(&batch_at(id, *partition, *offset))
        })
    })
}

fn serve(world: &World, id: i32, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut request = vec![0; i32::from_be_bytes(length) as usize];
        stream.read_exact(&mut request)?;
        let mut r = Reader::new(&request);
        let (key, _version, correlation) = (r.i16().expect("key"), r.i16(), r.i32().expect("correlation"));
        let _client = r.str();
        let body = answer(world, id, key, &mut r).into_bytes();
        let frame = [&(body.len() as i32 + 4).to_be_bytes()[..], &correlation.to_be_bytes(), &body].concat();
        stream.write_all(&frame)?;
    }
}

#[test]
fn a_page_comes_from_the_broker_that_was_asked_about_the_log() {
    let (world, third, gone, mut source) = begin();
    let at = |first: i64, second: i64| {
        [Position { partition: 0, offset: first }, Position { partition: 1, offset: second }]
    };
    let mut trails = Trails::new();
    for fetched in source.follow(&at(0, 0), &trails).expect("followed") {
        let page = fetched.page.expect("a page");
        trails.entry(fetched.partition).or_default().cover(&page, page.next_offset);
    }
    assert_eq!((trails[&0].last_epoch(), trails[&1].last_epoch()), (Some(5), Some(1)));
    // Broker 3 dies, which leads partition 1; broker 1 is cut off from the cluster but not from us, and 2 leads both.
    *world.leaders.lock().expect("whole") = [(2, 6), (2, 2)];
    gone.store(1, Ordering::SeqCst);
    for stream in third.lock().expect("whole").drain(..) {
        stream.shutdown(std::net::Shutdown::Both).expect("shut");
    }
    let fetched = source.follow(&at(4, 1), &trails);
    let page = fetched.into_iter().flatten().find(|fetched| fetched.partition == 0).and_then(|f| f.page.ok());
    let values: Vec<String> = page
        .iter()
        .flat_map(|page| page.records())
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .collect();
    if let Some(page) = &page {
        trails.entry(0).or_default().cover(page, page.next_offset);
    }
    let later = source.compare(&[Position { partition: 0, offset: 5 }], &trails);
    assert!(
        values.is_empty(),
        "{values:?}, but what 2 has before it was never read; later it is reported: {later:?}"
    );
}

type Third = Arc<Mutex<Vec<TcpStream>>>;

fn begin() -> (Arc<World>, Third, Arc<AtomicUsize>, KafkaSource) {
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("bound")).collect();
    let ports: Vec<u16> =
        listeners.iter().map(|listener| listener.local_addr().expect("address").port()).collect();
    let world = Arc::new(World { ports: ports.clone(), leaders: Mutex::new([(1, 5), (3, 1)]) });
    let third: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let gone = Arc::new(AtomicUsize::new(0));
    for (listener, id) in listeners.into_iter().zip(1..) {
        let (world, third, gone) = (world.clone(), third.clone(), gone.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if id == 3 && gone.load(Ordering::SeqCst) > 0 {
                    continue;
                }
                if id == 3 {
                    third.lock().expect("whole").push(stream.try_clone().expect("cloned"));
                }
                let world = world.clone();
                thread::spawn(move || serve(&world, id, stream));
            }
        });
    }
    let config = KafkaConfig {
        brokers: vec![format!("127.0.0.1:{}", ports[1])],
        topic: TOPIC.into(),
        connect_timeout_ms: 1000,
        request_timeout_ms: 2000,
        client: KafkaClient::Wire,
        security: SecurityConfig::default(),
    };
    let source = open_source(&config).expect("a thread");
    (world, third, gone, source)
}

/// The leader stays the same and gets another epoch, as after a reassignment: it has what was read.
#[test]
fn another_epoch_of_the_same_leader_is_followed_without_an_error() {
    let (world, _third, _gone, mut source) = begin();
    let at = |offset| [Position { partition: 1, offset }];
    let mut trails = Trails::new();
    let page = source.follow(&at(0), &trails).expect("followed").remove(0).page.expect("a page");
    trails.entry(1).or_default().cover(&page, page.next_offset);
    *world.leaders.lock().expect("whole") = [(1, 5), (3, 2)];
    let tries: Vec<_> = (0..2).map(|_| source.follow(&at(1), &trails)).collect();
    assert!(tries.iter().all(Result::is_ok), "{tries:?}");
}
