//! Simulates a file system that can stop at any operation and shows what a kill or a power cut leaves behind.
//!
//! Harsher than a journaling file system: of everything that was not forced to disk, any part may survive.
//! Longer than most files, because it is one file system: its operations, its faults and what survives them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;

use crate::consumer::log::storage::{AppendFile, Stat, Storage};

/// Handle of a simulated disk; clones share the disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<World>>);

#[derive(Clone, Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Name changes since the last `sync_dir`.
    unsynced: Vec<NameChange>,
    operations: usize,
    /// The process dies in this operation.
    crash_at: Option<usize>,
    /// The first and the last operation that fail; after that the disk works again.
    fails: Option<(usize, usize)>,
    /// Right before this operation, another program compresses the first file to the second.
    compress: Option<(usize, PathBuf, PathBuf)>,
    crashed: bool,
}

#[derive(Clone, Default)]
struct Inode {
    data: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone)]
enum NameChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Remove(PathBuf),
}

/// The outcome of an operation.
enum Fate {
    Works,
    /// Only the first half is done.
    Fails(io::Error),
}

impl World {
    fn begin(&mut self) -> Fate {
        if self.crashed {
            return Fate::Fails(io::Error::other("the process is dead"));
        }
        self.operations += 1;
        if let Some((_, from, to)) = self.compress.take_if(|(at, ..)| *at == self.operations) {
            self.compress(&from, &to);
        }
        if self.crash_at == Some(self.operations) {
            self.crashed = true;
            return Fate::Fails(io::Error::other("killed"));
        }
        if self.fails.is_some_and(|(from, to)| (from..=to).contains(&self.operations)) {
            return Fate::Fails(io::ErrorKind::StorageFull.into());
        }
        Fate::Works
    }

    /// Does what logrotate and gzip do together: creates a copy called `to` and deletes `from`, which may
    /// still be open.
    fn compress(&mut self, from: &Path, to: &Path) {
        let Some(inode) = self.names.remove(from) else { return };
        let copy = self.create(to);
        let data = self.inodes[inode].data.clone();
        self.inodes[copy] = Inode { durable: data.clone(), data };
        self.durable_names = self.names.clone();
        self.unsynced.clear();
    }

    fn create(&mut self, path: &Path) -> usize {
        if let Some(&inode) = self.names.get(path) {
            return inode;
        }
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.names.insert(path.to_path_buf(), inode);
        self.unsynced.push(NameChange::Create(path.to_path_buf(), inode));
        inode
    }

    fn stat(&self, inode: usize) -> Stat {
        let links = self.names.values().filter(|&&other| other == inode).count() as u64;
        let len = self.inodes[inode].data.len() as u64;
        Stat { len, inode: number(inode), links, is_file: true, modified: 0 }
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Create(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl SimDisk {
    /// Makes the process die in operation `number`, counted from now.
    pub fn crash_at(&self, number: usize) {
        let mut world = self.world();
        world.crash_at = Some(world.operations + number);
    }

    /// Makes operations `from` to `to`, counted from now, fail half done.
    pub fn fail(&self, from: usize, to: usize) {
        let mut world = self.world();
        world.fails = Some((world.operations + from, world.operations + to));
    }

    /// Makes another program compress `from` to `to` right before operation `number`, counted from now.
    pub fn compress_at(&self, number: usize, from: &Path, to: &Path) {
        let mut world = self.world();
        world.compress = Some((world.operations + number, from.to_path_buf(), to.to_path_buf()));
    }

    /// Number of operations so far.
    pub fn operations(&self) -> usize {
        self.world().operations
    }

    /// True once the process has died.
    pub fn crashed(&self) -> bool {
        self.world().crashed
    }

    /// The disk that the next process finds after a kill: everything handed to the kernel survives.
    pub fn after_kill(&self) -> Self {
        let mut world = self.world().clone();
        (world.crashed, world.crash_at, world.fails) = (false, None, None);
        Self(Arc::new(Mutex::new(world)))
    }

    /// The disk that the next boot finds: what was forced to disk survives, and a random part of the rest.
    pub fn after_power_cut(&self, rng: &mut Rng) -> Self {
        let killed = self.after_kill();
        let mut world = killed.world();
        let mut names = world.durable_names.clone();
        let kept: Vec<NameChange> =
            std::mem::take(&mut world.unsynced).into_iter().filter(|_| rng.bool()).collect();
        kept.iter().for_each(|change| change.apply(&mut names));
        world.names.clone_from(&names);
        world.durable_names = names;
        for inode in &mut world.inodes {
            inode.lose(rng);
        }
        drop(world);
        killed
    }

    /// Renames a file, as another program would.
    pub fn rename_by_others(&self, from: &Path, to: &Path) {
        let mut world = self.world();
        let Some(inode) = world.names.remove(from) else { return };
        world.names.insert(to.to_path_buf(), inode);
        world.unsynced.push(NameChange::Rename(from.to_path_buf(), to.to_path_buf(), inode));
    }

    /// The concatenated content of all files whose name `wanted` accepts, in the order of their paths.
    pub fn contents(&self, wanted: impl Fn(&str) -> bool) -> Vec<u8> {
        let world = self.world();
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let files = world.names.iter().filter(|(path, _)| wanted(&name(path)));
        files.flat_map(|(_, &inode)| world.inodes[inode].data.clone()).collect()
    }

    /// Puts `bytes` into a new file, as another program would.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut world = self.world();
        world.names.remove(path);
        let inode = world.create(path);
        world.inodes[inode] = Inode { data: bytes.to_vec(), durable: bytes.to_vec() };
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no test panics with the lock held")
    }
}

impl Inode {
    fn lose(&mut self, rng: &mut Rng) {
        let appended = self.data.strip_prefix(&*self.durable).map(<[u8]>::to_vec);
        self.data = match (appended, rng.u8(..4)) {
            (_, 0) => self.durable.clone(),
            (Some(tail), 1) => [&*self.durable, &tail[..rng.usize(..=tail.len())]].concat(),
            // The length is on disk, but the content is not.
            (Some(tail), 2) => [&*self.durable, &vec![0; tail.len()]].concat(),
            _ => self.data.clone(),
        };
        self.durable.clone_from(&self.data);
    }
}

/// Avoids inode 0, which real file systems do not use.
fn number(inode: usize) -> u64 {
    inode as u64 + 1
}

/// An open file of the simulated disk.
pub struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl SimFile {
    fn change(&mut self, change: impl FnOnce(&mut Inode, bool)) -> io::Result<()> {
        let mut world = self.disk.world();
        let fate = world.begin();
        let inode = &mut world.inodes[self.inode];
        match fate {
            Fate::Works => {
                change(inode, true);
                Ok(())
            }
            Fate::Fails(error) => {
                change(inode, false);
                Err(error)
            }
        }
    }
}

impl AppendFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.change(|inode, whole| {
            let part = if whole { bytes.len() } else { bytes.len() / 2 };
            inode.data.extend_from_slice(&bytes[..part]);
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.change(|inode, whole| {
            if whole {
                inode.durable.clone_from(&inode.data);
            }
        })
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.change(|inode, whole| {
            if whole {
                inode.data.resize(len as usize, 0);
            }
        })
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(self.disk.world().stat(self.inode))
    }
}

impl Storage for SimDisk {
    type File = SimFile;

    fn open_append(&self, path: &Path) -> io::Result<SimFile> {
        let mut world = self.world();
        if let Fate::Fails(error) = world.begin() {
            return Err(error);
        }
        let inode = world.create(path);
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        let world = self.world();
        Ok(world.names.get(path).map(|&inode| world.stat(inode)))
    }

    fn read_range(&self, path: &Path, from: u64, len: u64) -> io::Result<Vec<u8>> {
        let world = self.world();
        let data = &world.inodes[world.inode(path)?].data;
        Ok(data.iter().skip(from as usize).take(len as usize).copied().collect())
    }

    fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        {
            let mut world = self.world();
            let fate = world.begin();
            let inode = world.create(path);
            let part = if matches!(fate, Fate::Works) { bytes.len() } else { bytes.len() / 2 };
            world.inodes[inode].data = bytes[..part].to_vec();
            if let Fate::Fails(error) = fate {
                return Err(error);
            }
        }
        if sync { self.open_append(path)?.sync() } else { Ok(()) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        if let Fate::Fails(error) = world.begin() {
            return Err(error);
        }
        let inode = world.inode(from)?;
        let change = NameChange::Rename(from.to_path_buf(), to.to_path_buf(), inode);
        change.apply(&mut world.names);
        world.unsynced.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        if let Fate::Fails(error) = world.begin() {
            return Err(error);
        }
        world.inode(path)?;
        let change = NameChange::Remove(path.to_path_buf());
        change.apply(&mut world.names);
        world.unsynced.push(change);
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut world = self.world();
        if let Fate::Fails(error) = world.begin() {
            return Err(error);
        }
        world.durable_names = world.names.clone();
        world.unsynced.clear();
        Ok(())
    }

    fn names(&self, _: &Path) -> io::Result<Vec<String>> {
        let names = self
            .world()
            .names
            .keys()
            .map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
            .collect();
        Ok(names)
    }
}
