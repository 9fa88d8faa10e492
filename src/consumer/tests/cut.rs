//! A topic that was cut while the reader stood, without a change of leader, epoch or connection that it saw.

use std::sync::Arc;

use super::*;
use crate::broker::{BrokerError, Committed, Compared, Fetched, Found, Parting, Position, Source, Trails};
use crate::config::{ReadingConfig, Shard};
use crate::consumer::EXIT_UNDECIDED;
use crate::consumer::claim::Claim;
use crate::consumer::mark::Mark;
use crate::consumer::reader::Reader;
use crate::consumer::state::State;
use crate::shutdown::Shutdown;

/// Ends at 110.
struct Cut {
    found: Found,
}

impl Source for Cut {
    fn partitions(&mut self) -> Result<Vec<i32>, BrokerError> {
        Ok(vec![0])
    }

    fn topic_id(&mut self) -> Result<Option<String>, BrokerError> {
        Ok(None)
    }

    fn bounds(&mut self, _: &[i32]) -> Result<Vec<Result<Bounds, BrokerError>>, BrokerError> {
        Ok(vec![Ok(Bounds { partition: 0, earliest: 0, latest: 110 })])
    }

    fn fetch(&mut self, _: &[Position]) -> Result<Vec<Fetched>, BrokerError> {
        Ok(vec![Fetched { partition: 0, page: Err(BrokerError::OffsetOutOfRange("out of range".into())) }])
    }

    fn follow(&mut self, positions: &[Position], _: &Trails) -> Result<Vec<Fetched>, BrokerError> {
        self.fetch(positions)
    }

    fn compare(
        &mut self,
        positions: &[Position],
        _: &Trails,
    ) -> Result<Vec<Result<Compared, BrokerError>>, BrokerError> {
        let compared = |at: &Position| Ok(Compared { partition: at.partition, found: self.found });
        Ok(positions.iter().map(compared).collect())
    }

    fn committed(&mut self, _: &str, partitions: &[i32]) -> Result<Vec<Option<Committed>>, BrokerError> {
        Ok(vec![None; partitions.len()])
    }

    fn commit(&mut self, _: &str, _: &[Position], _: &str) -> Result<(), BrokerError> {
        Ok(())
    }
}

/// Exit code of a reader at 120.
fn exit_code(found: Found, reset: OffsetReset) -> u8 {
    let shard = Shard { index: 0, count: 1 };
    let config = ReadingConfig {
        group: "g".into(),
        shard,
        take_over: None,
        offset_reset: reset,
        fetch_max_bytes: 1 << 24,
        metadata_max_age_ms: 60_000,
    };
    let progress = Progress { topic: "t".into(), offsets: [(0, 120)].into(), ..Progress::default() };
    let claim = Claim::new("g", Mark::new("log", shard, "here", None, 1), progress.offsets.clone());
    let (pages, _batches) = crossbeam::channel::bounded(1);
    let (_trigger, shutdown) = Shutdown::manual();
    let reader = Reader::new(
        (Cut { found }, claim),
        (&progress, &[]),
        &config,
        pages,
        Arc::new(State::default()),
        shutdown,
    );
    reader.run().1.expect_err("it ends").exit_code
}

#[test]
fn what_was_decided_about_a_log_that_was_cut_holds_when_the_fetch_meets_it_first() {
    let parted = Found::Parted(Parting::At(110));
    assert_eq!(exit_code(parted, OffsetReset::Divergence), 1);
    assert_eq!(exit_code(parted, OffsetReset::None), EXIT_UNDECIDED);
    assert_eq!(exit_code(Found::Unknown, OffsetReset::Divergence), EXIT_UNDECIDED);
}
