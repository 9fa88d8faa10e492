//! Remembers the fingerprints of the last ids, for a time and up to a number. Pure.
//!
//! The ids are in generations, each of which is forgotten as a whole: half of the time or half of the number closes
//! one, and the oldest goes once those after it are enough.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::iter;

use crate::consumer::log::ids::fingerprint::{Fingerprint, Uniform};

/// What is remembered, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Member of the events that is their id.
    pub field: String,
    /// How long ids are remembered.
    pub limits: Limits,
}

/// How long ids are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At least this long, in milliseconds, unless there are more ids than `ids`.
    pub millis: i64,
    /// At least so many, even if they are older. At most twice as many are held.
    pub ids: usize,
}

/// The ids of some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Rises by one with each generation.
    pub number: u64,
    /// Time of its first id, in milliseconds since the epoch.
    pub began: i64,
    /// How many ids it has.
    len: usize,
}

/// What is kept beside an id: the checksum of its event without the last bits, and those of the generation's number,
/// which tell apart the few generations that there are.
#[derive(Clone, Copy)]
struct Note(u32);

const GENERATION_BITS: u32 = 0xff;

impl Note {
    fn new(checksum: u32, generation: u64) -> Self {
        Self(checksum & !GENERATION_BITS | generation as u32 & GENERATION_BITS)
    }

    fn is_of(self, checksum: u32) -> bool {
        (self.0 ^ checksum) & !GENERATION_BITS == 0
    }

    fn is_in(self, generation: u64) -> bool {
        (self.0 ^ generation as u32) & GENERATION_BITS == 0
    }
}

/// All that is remembered.
pub struct Window {
    limits: Limits,
    /// One table for all generations, because each lookup in a large one waits for memory.
    ids: HashMap<Fingerprint, Note, BuildHasherDefault<Uniform>>,
    /// Oldest first; ids are added to the last one.
    generations: VecDeque<Generation>,
    /// The latest time that it was moved to.
    time: i64,
    /// Ids were forgotten before their time, because there were too many.
    cut_short: bool,
}

impl Window {
    /// A window that remembers nothing, whose first generation has this number.
    pub fn empty(limits: Limits, number: u64) -> Self {
        let mut window = Self::at(limits, i64::MIN);
        window.restore(number, i64::MIN, iter::empty());
        window
    }

    /// A window without generations, for [`Self::restore`].
    pub fn at(limits: Limits, time: i64) -> Self {
        Self { limits, ids: HashMap::default(), generations: VecDeque::new(), time, cut_short: false }
    }

    /// Adds a generation with its ids and the checksums of their events, after the older ones.
    pub fn restore(
        &mut self,
        number: u64,
        began: i64,
        ids: impl ExactSizeIterator<Item = (Fingerprint, u32)>,
    ) {
        let before = self.ids.len();
        self.ids.reserve(ids.len());
        self.ids.extend(ids.map(|(id, checksum)| (id, Note::new(checksum, number))));
        self.generations.push_back(Generation { number, began, len: self.ids.len() - before });
    }

    /// Moves its time forward to `time`; it never goes back.
    pub fn advance(&mut self, time: i64) {
        self.time = self.time.max(time);
    }

    /// Its time, in milliseconds since the epoch.
    pub fn time(&self) -> i64 {
        self.time
    }

    /// Whether the event with this id had the same checksum; `None` if the id is not remembered.
    pub fn find(&self, id: &Fingerprint, checksum: u32) -> Option<bool> {
        self.ids.get(id).map(|note| note.is_of(checksum))
    }

    /// True if the next id needs a new generation.
    pub fn is_due(&self) -> bool {
        let current = self.current();
        current.len > 0
            && (self.time.saturating_sub(current.began) >= (self.limits.millis + 1) / 2
                || current.len >= self.limits.ids.div_ceil(2))
    }

    /// Begins a generation, and forgets those that are not needed any more.
    pub fn begin_generation(&mut self) {
        while self.generations.len() > 1 && self.is_enough_without_the_oldest() {
            if let Some(oldest) = self.generations.pop_front() {
                self.ids.retain(|_, note| !note.is_in(oldest.number));
            }
            self.cut_short = self.reach() < self.limits.millis;
        }
        let number = self.current().number + 1;
        self.generations.push_back(Generation { number, began: self.time, len: 0 });
    }

    fn is_enough_without_the_oldest(&self) -> bool {
        let rest = || self.generations.iter().skip(1);
        let oldest = rest().next().map_or(self.time, |generation| generation.began);
        self.time.saturating_sub(oldest) >= self.limits.millis
            || rest().map(|generation| generation.len).sum::<usize>() >= self.limits.ids
    }

    /// Remembers an id that is not remembered yet.
    pub fn add(&mut self, id: Fingerprint, checksum: u32) {
        let time = self.time;
        let current = self.generations.back_mut().expect("there is always one");
        if current.len == 0 {
            current.began = time;
        }
        current.len += 1;
        let note = Note::new(checksum, current.number);
        if self.ids.len() == self.ids.capacity() {
            self.make_room();
        }
        self.ids.insert(id, note);
    }

    /// Not all places of forgotten ids can be used again, and a table without free places becomes twice as large even
    /// where those would be enough. A copy is larger only if there are too many ids for the present size.
    fn make_room(&mut self) {
        let len = self.ids.len();
        let mut copy = HashMap::with_capacity_and_hasher(len + len / 16 + 1, BuildHasherDefault::default());
        copy.extend(self.ids.drain());
        self.ids = copy;
    }

    /// Moves its time forward to `time`, and remembers an id unless it is remembered already.
    pub fn remember(&mut self, time: i64, id: Fingerprint, checksum: u32) {
        self.advance(time);
        if self.find(&id, checksum).is_some() {
            return;
        }
        if self.is_due() {
            self.begin_generation();
        }
        self.add(id, checksum);
    }

    /// The same, with generations whose numbers begin at `first`.
    pub fn renumbered(&self, first: u64) -> Self {
        let mut window = Self::at(self.limits, self.time);
        for (number, generation) in (first..).zip(&self.generations) {
            let ids: Vec<_> = self.ids_of(generation).collect();
            window.restore(number, generation.began, ids.into_iter());
        }
        window
    }

    /// The generation to which ids are added.
    pub fn current(&self) -> &Generation {
        self.generations.back().expect("there is always one")
    }

    /// Oldest first.
    pub fn generations(&self) -> impl Iterator<Item = &Generation> {
        self.generations.iter()
    }

    /// The ids of `generation` with the checksums of their events, as far as these are kept.
    pub fn ids_of(&self, generation: &Generation) -> impl Iterator<Item = (Fingerprint, u32)> {
        let ids = self.ids.iter().filter(|(_, note)| note.is_in(generation.number));
        ids.map(|(id, note)| (*id, note.0 & !GENERATION_BITS))
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Age of the oldest id, in milliseconds.
    pub fn reach(&self) -> i64 {
        if self.len() == 0 { 0 } else { self.time.saturating_sub(self.generations[0].began) }
    }

    /// True if ids were forgotten before their time, because there were too many.
    pub fn is_cut_short(&self) -> bool {
        self.cut_short
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fingerprint(id: u8) -> Fingerprint {
        Fingerprint([id; 16])
    }

    proptest! {
        /// Beside a plain list of all ids with their times.
        #[test]
        fn what_the_limits_promise_is_found_and_nothing_that_was_not_there(
            events in proptest::collection::vec((0_i64..40, 0_u8..60), 1..400),
            millis in 1_i64..200,
            ids in 1_usize..20,
        ) {
            let mut window = Window::empty(Limits { millis, ids }, 1);
            let mut all: Vec<(i64, u8)> = Vec::new();
            let mut time = 0;
            for (later, id) in events {
                time += later;
                window.advance(time);
                let found = window.find(&fingerprint(id), 0).is_some();
                let last = all.iter().rposition(|(_, other)| *other == id);
                prop_assert!(!found || last.is_some(), "{id} was never there");
                if let Some(last) = last {
                    let is_promised = all.len() - last <= ids && time - all[last].0 <= millis;
                    prop_assert!(found || !is_promised, "{id} of {:?} is forgotten at {time}", all[last]);
                }
                if !found {
                    if window.is_due() {
                        window.begin_generation();
                    }
                    window.add(fingerprint(id), 0);
                    all.push((time, id));
                }
                prop_assert!(window.len() <= 2 * ids + 2, "{} are held", window.len());
            }
        }
    }

    #[test]
    fn its_memory_does_not_grow_with_the_ids_that_it_forgets() {
        let ids = 2000;
        let mut window = Window::empty(Limits { millis: 1_000_000, ids }, 1);
        let mut random = fastrand::Rng::with_seed(1);
        for time in 0..200_000 {
            window.remember(time, Fingerprint(random.u128(..).to_le_bytes()), 0);
            let (held, places) = (window.len(), window.ids.capacity());
            assert!(places <= 2 * ids, "{places} places for {held} ids at {time}");
        }
    }

    #[test]
    fn it_says_when_there_were_too_many_ids_for_the_time() {
        let mut window = Window::empty(Limits { millis: 1000, ids: 4 }, 1);
        let mut add = |id: u8, time: i64| {
            window.advance(time);
            if window.is_due() {
                window.begin_generation();
            }
            window.add(fingerprint(id), 0);
            (window.is_cut_short(), window.reach())
        };
        assert_eq!(add(0, 5), (false, 0));
        for id in 1..8 {
            add(id, 100);
        }
        assert!(add(9, 200).0);
        for (id, time) in [(10, 2000), (11, 4000), (12, 6000)] {
            add(id, time);
        }
        assert!(!add(13, 8000).0);
    }
}
