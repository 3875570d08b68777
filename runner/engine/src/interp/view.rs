//! Clients and memory as actors use them, be they in this process or in another.

use super::remote::RemoteClient;
use fencepost_fixtures::area::Reach;
use fencepost_fixtures::device::{AtomicOp, Client, Gem, Result, Width};
use fencepost_fixtures::memory::Window;
use std::ops::Deref;
use std::sync::Arc;

/// Memory that the CPU of some process sees.
pub(super) trait View: Send + Sync {
    /// Address of the first byte, in the process that sees it.
    fn addr(&self) -> u64;
    /// Loads a word with acquire ordering.
    fn load(&self, offset: u64, width: Width) -> Result<u64>;
    /// Stores a word with release ordering.
    fn store(&self, offset: u64, width: Width, value: u64) -> Result<()>;
    /// An atomic; gives the old value.
    fn atomic(&self, offset: u64, width: Width, op: AtomicOp, operand: u64) -> Result<u64>;
    /// Copies bytes out.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()>;
    /// Copies bytes in.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Fills with a repeated value.
    fn fill(&self, offset: u64, bytes: u64, width: Width, value: u64) -> Result<()>;
}

impl View for Window {
    fn addr(&self) -> u64 {
        Self::addr(self)
    }

    fn load(&self, offset: u64, width: Width) -> Result<u64> {
        self.load_acquire(offset, width)
    }

    fn store(&self, offset: u64, width: Width, value: u64) -> Result<()> {
        self.store_release(offset, width, value)
    }

    fn atomic(&self, offset: u64, width: Width, op: AtomicOp, operand: u64) -> Result<u64> {
        Self::atomic(self, offset, width, op, operand)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        Self::read(self, offset, out)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Self::write(self, offset, bytes)
    }

    fn fill(&self, offset: u64, bytes: u64, width: Width, value: u64) -> Result<()> {
        Self::fill(self, offset, bytes, width, value)
    }
}

impl View for Reach {
    fn addr(&self) -> u64 {
        self.addr
    }

    fn load(&self, offset: u64, width: Width) -> Result<u64> {
        Self::load(self, offset, width)
    }

    fn store(&self, offset: u64, width: Width, value: u64) -> Result<()> {
        Self::store(self, offset, width, value)
    }

    fn atomic(&self, offset: u64, width: Width, op: AtomicOp, operand: u64) -> Result<u64> {
        Self::atomic(self, offset, width, op, operand)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        Self::read(self, offset, out)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Self::write(self, offset, bytes)
    }

    fn fill(&self, offset: u64, bytes: u64, width: Width, value: u64) -> Result<()> {
        Self::fill(self, offset, bytes, width, value)
    }
}

/// An open file of the device.
pub(super) enum ClientHandle {
    /// In this process.
    Local(Box<dyn Client>),
    /// In a process of its own.
    Remote(RemoteClient),
}

impl ClientHandle {
    /// Maps an object for the CPU.
    pub(super) fn map(&self, gem: Gem, size: u64) -> Result<Arc<dyn View>> {
        match self {
            Self::Local(client) => Ok(Arc::new(client.gem_map(gem, 0, size)?)),
            Self::Remote(client) => client.map(gem, size),
        }
    }

    /// The other process, if it is one.
    pub(super) fn remote(&self) -> Option<&RemoteClient> {
        match self {
            Self::Local(_) => None,
            Self::Remote(client) => Some(client),
        }
    }

    /// Closes the file now rather than with the last who holds it, where that takes a process.
    pub(super) fn close(&self) {
        if let Self::Remote(client) = self {
            client.close();
        }
    }
}

impl Deref for ClientHandle {
    type Target = dyn Client;

    fn deref(&self) -> &(dyn Client + 'static) {
        match self {
            Self::Local(client) => &**client,
            Self::Remote(client) => client,
        }
    }
}
