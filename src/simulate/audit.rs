//! Compares the lines of the event log with the ledger of a run. Pure: lines in, findings out.
//!
//! Uses 5 bytes per event in addition to the ledger. Events of other runs and clients count as foreign and
//! are otherwise ignored. Any line that is not a complete log line counts as torn, including foreign ones.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use crate::broker::Receipt;
use crate::simulate::answer::Fate;
use crate::simulate::findings::Findings;
use crate::simulate::ledger::Ledger;
use crate::simulate::workload::run_marker;

/// Most characters of a torn line that are shown.
const SHOWN_CHARS: usize = 120;

/// `2025-07-08 00:12:01,782 - `, with `0` for any digit.
const LINE_START: &[u8] = b"0000-00-00 00:00:00,000 - ";

/// One pass over the logs.
pub struct Auditor<'a> {
    ledger: &'a Ledger,
    marker: Vec<u8>,
    /// How many times each event was seen, at most 255.
    seen: Vec<u8>,
    /// Events in the order in which they first appeared.
    order: Vec<u32>,
    /// Where each log begins in `order`.
    begins: Vec<usize>,
    findings: Findings,
}

impl<'a> Auditor<'a> {
    /// Starts an audit of the run in `ledger`.
    pub fn new(ledger: &'a Ledger) -> Self {
        Self {
            ledger,
            marker: run_marker(&ledger.run).into_bytes(),
            seen: vec![0; ledger.end()],
            order: Vec::new(),
            begins: Vec::new(),
            findings: Findings::default(),
        }
    }

    /// What is added from now on is in another log. A partition that was given to another consumer continues there, so
    /// there is no order between logs.
    pub fn begin_log(&mut self) {
        self.begins.push(self.order.len());
    }

    /// Adds one line, passed without its line ending.
    pub fn line(&mut self, line: &[u8]) {
        if is_whole(line) { self.whole(line) } else { self.torn(line) }
    }

    /// Adds a line that is too long to hold in memory, given its beginning and its last byte.
    pub fn long(&mut self, line: &[u8]) {
        if starts_well(line) && line.ends_with(b"}") { self.whole(line) } else { self.torn(line) }
    }

    /// Adds the event of a row of a lake.
    pub fn event(&mut self, event: &[u8]) {
        if is_object(event) { self.whole(event) } else { self.torn(event) }
    }

    /// Adds what is wrong with a file.
    pub fn damaged(&mut self, what: String) {
        self.findings.damaged.add(|| what);
    }

    fn whole(&mut self, line: &[u8]) {
        let Some(seq) = self.seq_of(line) else {
            self.findings.foreign += 1;
            return;
        };
        match self.seen.get_mut(seq as usize) {
            Some(times) if self.ledger.fate(seq as usize).is_some() => {
                if *times == 0 {
                    self.order.push(seq);
                }
                *times = times.saturating_add(1);
            }
            _ => self.findings.unrecorded += 1,
        }
    }

    /// Adds a line that counts as torn.
    pub fn torn(&mut self, line: &[u8]) {
        self.findings.torn.add(|| {
            let text = String::from_utf8_lossy(line);
            text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect()
        });
    }

    /// The sequence number in `line`, or `None` if it does not belong to this run.
    fn seq_of(&self, line: &[u8]) -> Option<u32> {
        let at = find(line, &self.marker)? + self.marker.len();
        let digits = line[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(&line[at..at + digits]).ok()?.parse().ok()
    }

    /// Evaluates the lines added so far.
    pub fn finish(mut self) -> Findings {
        for seq in 0..self.ledger.end() {
            let Some(fate) = self.ledger.fate(seq) else { continue };
            let (times, was_retried) = (self.seen[seq], self.ledger.was_retried(seq));
            let findings = &mut self.findings;
            findings.sent += 1;
            findings.repeated += u64::from(was_retried);
            findings.logged += u64::from(times > 0);
            if times > 1 {
                findings.duplicated.add(|| seq as u32);
                findings.duplicated_by_retry += u64::from(was_retried);
            }
            match (fate, times) {
                (Fate::Acknowledged(_), 0) => {
                    findings.acknowledged += 1;
                    findings.lost.add(|| seq as u32);
                }
                (Fate::Acknowledged(_), _) => findings.acknowledged += 1,
                (Fate::Rejected, 0) => {}
                // An earlier attempt, of unknown outcome, may have written it.
                (Fate::Rejected, _) if was_retried => findings.unknown_found += 1,
                (Fate::Rejected, _) => findings.rejected_logged.add(|| seq as u32),
                (Fate::Unknown, 0) => findings.unknown_missing += 1,
                (Fate::Unknown, _) => findings.unknown_found += 1,
            }
        }
        self.check_order();
        self.findings
    }

    /// Finds events out of order. Skips events that were logged or sent more than once: they have more than
    /// one position for a single receipt.
    fn check_order(&mut self) {
        let mut last: BTreeMap<i32, i64> = BTreeMap::new();
        let mut begins = self.begins.iter().peekable();
        for (place, &seq) in self.order.iter().enumerate() {
            while begins.next_if(|begin| **begin <= place).is_some() {
                last.clear();
            }
            let at = seq as usize;
            if self.seen[at] > 1 || self.ledger.was_retried(at) {
                continue;
            }
            let Some(Fate::Acknowledged(Some(Receipt { partition, offset }))) = self.ledger.fate(at) else {
                continue;
            };
            let highest = last.entry(partition).or_insert(i64::MIN);
            if offset <= *highest {
                self.findings.out_of_order.add(|| seq);
            }
            *highest = offset.max(*highest);
        }
    }
}

/// True if `line` is a timestamp, a dash and one JSON object.
fn is_whole(line: &[u8]) -> bool {
    starts_well(line) && is_object(&line[LINE_START.len()..])
}

fn is_object(text: &[u8]) -> bool {
    text.first() == Some(&b'{') && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// True if `line` starts with a timestamp, a dash and the opening brace of an object.
fn starts_well(line: &[u8]) -> bool {
    let Some((start, json)) = line.split_at_checked(LINE_START.len()) else { return false };
    let has_time = start.iter().zip(LINE_START).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        fixed => byte == fixed,
    });
    has_time && json.first() == Some(&b'{')
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    let first = *part.first()?;
    let mut from = 0;
    while let Some(step) = text.get(from..)?.iter().position(|byte| *byte == first) {
        let at = from + step;
        if text[at..].starts_with(part) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::ledger::Entry;

    fn ledger(fates: &[Fate]) -> Ledger {
        let mut ledger = Ledger::new("k3x9".into());
        for (first, fate) in fates.iter().enumerate() {
            ledger.enter(&Entry { first: first as u32, count: 1, fate: *fate, retried: false });
        }
        ledger
    }

    fn ack(offset: i64) -> Fate {
        Fate::Acknowledged(Some(Receipt { partition: 0, offset }))
    }

    fn line(seq: u32) -> String {
        format!(
            "2025-07-08 00:12:01,782 - {{\"event\": \"login\", \"user_id\": 1, \"run\": \"k3x9\", \"seq\": {seq}, \
             \"timestamp\": \"2025-07-08T00:12:01.781Z\"}}"
        )
    }

    fn audit(fates: &[Fate], lines: &[String]) -> Findings {
        let ledger = ledger(fates);
        let mut auditor = Auditor::new(&ledger);
        lines.iter().for_each(|line| auditor.line(line.as_bytes()));
        auditor.finish()
    }

    #[test]
    fn a_log_that_holds_each_event_once_has_no_faults() {
        let findings = audit(&[ack(5), ack(6), ack(9)], &[line(0), line(1), line(2)]);
        assert_eq!(findings.faults(), Vec::<String>::new());
        assert_eq!((findings.sent, findings.acknowledged, findings.logged), (3, 3, 3));
    }

    #[test]
    fn a_removed_line_is_lost_and_a_doubled_one_duplicated_by_number() {
        let findings = audit(&[ack(0), ack(1), ack(2)], &[line(0), line(2), line(2)]);
        assert_eq!((findings.lost.first, findings.duplicated.first), (vec![1], vec![2]));
        assert_eq!((findings.logged, findings.out_of_order.count), (2, 0));
        assert_eq!(findings.duplicated_by_retry, 0);
    }

    #[test]
    fn a_cut_line_is_torn_wherever_it_was_cut() {
        let whole = line(0);
        for cut in 1..whole.len() {
            let findings = audit(&[ack(0)], &[whole[..cut].to_owned()]);
            assert_eq!((findings.torn.count, findings.lost.count), (1, 1), "cut at {cut}");
        }
        let glued = format!("{}{}", &whole[..60], line(1));
        assert_eq!(audit(&[ack(0), ack(1)], &[glued]).torn.count, 1);
        assert_eq!(audit(&[], &[whole[5..].to_owned()]).torn.count, 1);
    }

    #[test]
    fn of_a_line_too_long_to_hold_beginning_and_end_are_judged() {
        let ledger = ledger(&[ack(0)]);
        let mut auditor = Auditor::new(&ledger);
        let begun = &line(0)[..90];
        for (time, end) in [("", "}"), ("", "x"), ("x", "}")] {
            auditor.long(format!("{time}{begun}{end}").as_bytes());
        }
        let findings = auditor.finish();
        assert_eq!((findings.torn.count, findings.foreign + findings.logged), (2, 1));
    }

    #[test]
    fn foreign_lines_are_ignored() {
        let other = line(0).replace("k3x9", "zzzz");
        let plain = "2025-07-08 00:12:01,782 - {\"event\": \"login\", \"user_id\": 42}".to_owned();
        let findings = audit(&[ack(0)], &[other, plain, line(0)]);
        assert_eq!((findings.foreign, findings.faults().len(), findings.logged), (2, 0, 1));
    }

    #[test]
    fn what_was_not_acknowledged_is_found_or_not_but_no_fault() {
        let findings = audit(&[Fate::Unknown, Fate::Unknown, ack(1)], &[line(0), line(2), line(7)]);
        assert_eq!((findings.unknown_found, findings.unknown_missing, findings.unrecorded), (1, 1, 1));
        assert_eq!((findings.faults().len(), findings.logged, findings.sent), (0, 2, 3));
        assert_eq!(audit(&[Fate::Rejected], &[line(0)]).rejected_logged.first, [0]);
        assert_eq!(audit(&[Fate::Rejected], &[]).faults().len(), 0);
    }

    #[test]
    fn events_that_were_sent_again_are_counted_and_must_be_in_the_log_once() {
        let mut ledger = ledger(&[ack(0), ack(1), Fate::Rejected]);
        for (first, fate) in [(1, ack(7)), (2, Fate::Rejected)] {
            ledger.enter(&Entry { first, count: 1, fate, retried: true });
        }
        let audit = |lines: &[u32]| {
            let mut auditor = Auditor::new(&ledger);
            lines.iter().for_each(|seq| auditor.line(line(*seq).as_bytes()));
            auditor.finish()
        };
        let findings = audit(&[1, 0, 2]);
        assert_eq!((findings.repeated, findings.unknown_found, findings.faults()), (2, 1, Vec::new()));
        let findings = audit(&[1, 0, 1]);
        assert_eq!((findings.duplicated.count, findings.duplicated_by_retry), (1, 1));
        assert_eq!(findings.faults(), ["1 logged more than once (seq 1)"]);
    }

    #[test]
    fn the_order_of_a_partition_follows_its_receipts() {
        let findings = audit(&[ack(5), ack(6), ack(7)], &[line(0), line(2), line(1)]);
        assert_eq!(findings.out_of_order.first, [1]);
        let other = Fate::Acknowledged(Some(Receipt { partition: 1, offset: 1 }));
        assert_eq!(audit(&[ack(5), other], &[line(0), line(1)]).out_of_order.count, 0);
        assert_eq!(
            audit(&[ack(5), ack(5)], &[line(0), line(1)]).out_of_order.first,
            [1],
            "two events with one offset"
        );
        let ledger = ledger(&[ack(5), ack(6), ack(7), ack(8)]);
        let mut moved = Auditor::new(&ledger);
        for log in [&[0, 2][..], &[1], &[], &[3]] {
            moved.begin_log();
            log.iter().for_each(|seq| moved.line(line(*seq).as_bytes()));
        }
        assert_eq!(moved.finish().out_of_order.count, 0, "another log has the events between");
        let twice = audit(&[ack(9), ack(6)], &[line(0), line(1), line(0)]);
        assert_eq!((twice.out_of_order.count, twice.duplicated.first), (0, vec![0]));
    }

    #[test]
    fn faults_name_numbers_and_say_when_there_are_more() {
        let findings = audit(&vec![ack(0); 30], &[]);
        assert_eq!(findings.lost.count, 30);
        assert_eq!(
            findings.faults(),
            ["30 acknowledged but not logged (seq 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …)"]
        );
    }
}
