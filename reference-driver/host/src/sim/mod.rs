//! The deterministic world: one thread, a clock that moves only when told, user memory in a map, and
//! workers stepped in an order that a seed decides. The same seed and calls give the same run.
//!
//! Owns the driving of the driver: [`Sim`] makes calls as a program would, and whoever waits drives
//! the workers until it is ready. What memory is stands in [`memory`], the host in [`host`].

pub mod cpu;
pub mod host;
pub mod memory;
pub mod migrate;
pub mod mirror;
mod mm;

use fencepost_core::driver::{Config, Driver, File, Mapping, Step, Worker};
use fencepost_uapi::fencepost::COUNTERS;
use fencepost_uapi::{Errno, Record};

pub use host::{SimHost, Task};

/// A device in its world.
pub struct Sim {
    driver: Driver<SimHost>,
}

/// An open file of a process.
#[derive(Clone)]
pub struct SimFile {
    /// The driver's side.
    pub file: File<SimHost>,
    /// The process that calls through it.
    pub task: Task,
}

impl Sim {
    /// Starts a device; the seed decides the order of work.
    ///
    /// # Errors
    /// As [`Driver::new`].
    pub fn new(seed: u64, config: Config) -> Result<Self, Errno> {
        let driver = Driver::new(SimHost::new(seed, config), config)?;
        driver.host().attach(driver.clone());
        Ok(Sim { driver })
    }

    /// Starts another device of the same machine: both reach the same address spaces.
    ///
    /// # Errors
    /// As [`Driver::new`].
    pub fn beside(&self, seed: u64, config: Config) -> Result<Self, Errno> {
        let driver = Driver::new(SimHost::beside(seed, self.host()), config)?;
        driver.host().attach(driver.clone());
        Ok(Sim { driver })
    }

    /// Another handle of a device that is there already; to be forgotten, not dropped.
    #[must_use]
    pub fn over(driver: Driver<SimHost>) -> Self {
        Sim { driver }
    }

    /// The driver.
    #[must_use]
    pub fn driver(&self) -> &Driver<SimHost> {
        &self.driver
    }

    /// The world.
    #[must_use]
    pub fn host(&self) -> &SimHost {
        self.driver.host()
    }

    /// A new process.
    #[must_use]
    pub fn process(&self) -> Task {
        self.host().new_process()
    }

    /// Opens the device in a process.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn open(&self, task: Task) -> Result<SimFile, Errno> {
        Ok(SimFile { file: self.driver.open()?, task })
    }

    /// Closes the last descriptor of an open file.
    pub fn close(&self, file: &SimFile) {
        self.driver.close(&file.file);
    }

    /// Makes a call with a record, which is updated as the driver did.
    ///
    /// # Errors
    /// The driver's.
    pub fn call<R: Record>(
        &self,
        file: &SimFile,
        request: u32,
        record: &mut R,
    ) -> Result<i64, Errno> {
        let mut bytes = vec![0; R::SIZE];
        record.encode(&mut bytes);
        let addr = self.host().scratch(file.task);
        self.host().write_user(file.task, addr, &bytes)?;
        let result = self.driver.ioctl(&file.file, file.task, request, addr);
        self.host().read_user(file.task, addr, &mut bytes)?;
        *record = R::decode(&bytes);
        result
    }

    /// Puts an array of records into a process' memory and returns its address.
    #[must_use]
    pub fn array<R: Record>(&self, task: Task, records: &[R]) -> u64 {
        let mut bytes = vec![0; records.len() * R::SIZE];
        for (record, out) in records.iter().zip(bytes.chunks_exact_mut(R::SIZE.max(1))) {
            record.encode(out);
        }
        self.bytes(task, &bytes)
    }

    /// Puts bytes into a process' memory and returns their address.
    #[must_use]
    pub fn bytes(&self, task: Task, bytes: &[u8]) -> u64 {
        let addr = self.host().alloc_user(task, bytes.len() as u64);
        self.host().write_user(task, addr, bytes).expect("just allocated");
        addr
    }

    /// Maps an object into a process' view.
    ///
    /// # Errors
    /// As [`Driver::mmap`].
    pub fn mmap(&self, file: &SimFile, offset: u64, len: u64) -> Result<Mapping<SimHost>, Errno> {
        self.driver.mmap(&file.file, offset, len)
    }

    /// Closes a descriptor; the last copy releases what it stands for.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn close_fd(&self, task: Task, fd: i32) -> Result<(), Errno> {
        if let Some((kind, id)) = self.host().take_fd(task, fd)? {
            self.driver.release_fd(kind, id);
        }
        Ok(())
    }

    /// Closes all descriptors of a process, as its exit does.
    pub fn close_all_fds(&self, task: Task) {
        for fd in 0..self.host().fd_count(task) {
            let _ = self.close_fd(task, fd);
        }
    }

    /// Steps one worker, if any has work; or lets time pass for those that wait for it. False: there
    /// is nothing to do.
    pub fn step(&self) -> bool {
        match step_any(&self.driver) {
            Progress::Work => true,
            Progress::Until(until) => {
                self.host().advance_to(until);
                true
            }
            Progress::None => false,
        }
    }

    /// Steps workers until nothing can be done, not even by waiting for time to pass.
    pub fn settle(&self) {
        while self.step() {}
    }

    /// The counters of the device by name.
    ///
    /// # Panics
    /// For a name that is none.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        let at = COUNTERS.iter().position(|known| *known == name);
        self.driver.counters()[at.unwrap_or_else(|| panic!("no counter {name}"))]
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.host().detach();
    }
}

/// What one round of the workers came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A worker did something.
    Work,
    /// Nothing can be done before that time.
    Until(u64),
    /// There is nothing to do.
    None,
}

/// Steps one worker that has work, chosen by the seed.
pub(crate) fn step_any(driver: &Driver<SimHost>) -> Progress {
    let host = driver.host();
    let engines = driver.config().engines;
    let common = Worker::COMMON.len() as u32;
    let workers = common + engines;
    let first = host.below(workers);
    let mut until: Option<u64> = None;
    for turn in 0..workers {
        let number = (first + turn) % workers;
        let worker = match Worker::COMMON.get(number as usize) {
            Some(worker) => *worker,
            None => Worker::Engine(number - common),
        };
        if !driver.runnable(worker) {
            continue;
        }
        match driver.step(worker) {
            Step::Worked => {
                host.advance(1_000);
                return Progress::Work;
            }
            Step::Stalled { until_ns } => {
                until = Some(until.map_or(until_ns, |least| least.min(until_ns)));
            }
            Step::Idle => {}
        }
    }
    match until {
        // Stalled for ever: only memory, which nobody changes now, could end it.
        None | Some(u64::MAX) => Progress::None,
        Some(until) => Progress::Until(until),
    }
}
