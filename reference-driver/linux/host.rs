//! The driver as a Linux module: loading, parameters, devices.
//!
//! Owns what a module owns. The driver itself is the rest of this crate, the same files as in user
//! space; `world` is its host, `device` its DRM face, `workers` its threads, and shim.c the C side.
#![expect(unsafe_code, reason = "a faux device is bound, which its type cannot say")]

mod attach;
mod device;
mod dmirror;
mod memory;
#[cfg(all(CONFIG_HMM_MIRROR, CONFIG_DEVICE_PRIVATE))]
mod mirror;
mod shim;
mod workers;
mod world;

use crate::driver::{Config, Driver};
use crate::svm;
use attach::{Attached, Listener};
use kernel::{faux, prelude::*, str::CString};
use world::World;

module! {
    type: Fencepost,
    name: "fencepost",
    authors: ["fencepost developers"],
    description: "fencepost reference driver",
    license: "Dual MIT/GPL",
    params: {
        vram_mib: u64 {
            default: 64,
            description: "Device memory of each device in MiB",
        },
        system_mib: u64 {
            default: 1024,
            description: "System memory that buffer objects of a device may take in MiB",
        },
        engines: u32 {
            default: 2,
            description: "Execution engines of each device (1 to 16)",
        },
        devices: u32 {
            default: 1,
            description: "Number of devices (1 to 8)",
        },
        dmirror: u32 {
            default: 0,
            description: "Number of nodes /dev/hmm_dmirror*, which answer as test_hmm (0 to 8)",
        },
        dmirror_first: u32 {
            default: 0,
            description: "Number of the first of these nodes; test_hmm has 0 to 3",
        },
        dmirror_mib: u64 {
            default: 256,
            description: "Device memory of each of these in MiB",
        },
        trust_hmm: u32 {
            default: 0,
            description: "Take hmm_range_fault() at its word about huge pages on the device (0 or 1)",
        },
        testing: u32 {
            default: 1,
            description: "Clients may use the debug group, which can hold up each other's work (0 or 1)",
        },
    },
}

/// One device. The fields are dropped in this order: threads, then the device's parent, which
/// unregisters it, then what the kernel knows of the driver.
struct Node {
    _workers: workers::Workers,
    parent: faux::Registration,
    _attached: Attached,
    driver: Driver<World>,
}

impl Node {
    /// All of a device but its nodes.
    fn new(number: u8, config: Config) -> Result<Self> {
        let host = World::new(number, svm::OWNER, config.vram_bytes).map_err(errno)?;
        let driver = Driver::new(host, config).map_err(errno)?;
        let name = CString::try_from_fmt(fmt!("fencepost.{number}"))?;
        let parent = faux::Registration::new(&name, None)?;
        let attached = Attached::new(Listener::Driver(driver.clone()))?;
        let workers = workers::Workers::start(driver.clone())?;
        Ok(Node { _workers: workers, parent, _attached: attached, driver })
    }

    /// Shows it to user space. Nothing may fail after that: files may be open.
    fn register(&self) -> Result {
        // SAFETY: a faux device is bound from its creation to its destruction.
        let bound = unsafe { self.parent.as_ref().as_bound() };
        device::register(bound, self.driver.clone()).map(|_| ())
    }
}

fn errno(errno: fencepost_uapi::Errno) -> Error {
    Error::from_errno(-errno.0)
}

struct Fencepost {
    _nodes: KVec<Node>,
    _dmirrors: KVec<dmirror::Node>,
}

/// The nodes that answer as test_hmm.
fn dmirrors() -> Result<KVec<dmirror::Node>> {
    let params = (*module_parameters::dmirror.value(), *module_parameters::dmirror_first.value());
    let (count, first) = params;
    if count > 8 || first > 100 {
        return Err(EINVAL);
    }
    let bytes = module_parameters::dmirror_mib.value().checked_mul(1 << 20).ok_or(EINVAL)?;
    let mut nodes = KVec::new();
    for number in first as u8..(first + count) as u8 {
        nodes.push(dmirror::Node::new(number, bytes).map_err(errno)?, GFP_KERNEL)?;
    }
    Ok(nodes)
}

impl kernel::Module for Fencepost {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let params = (*module_parameters::devices.value(), *module_parameters::engines.value());
        let (devices, engines) = params;
        if !(1..=8).contains(&devices) {
            return Err(EINVAL);
        }
        let config = Config {
            vram_bytes: module_parameters::vram_mib.value().checked_mul(1 << 20).ok_or(EINVAL)?,
            system_bytes: module_parameters::system_mib
                .value()
                .checked_mul(1 << 20)
                .ok_or(EINVAL)?,
            engines,
            testing: *module_parameters::testing.value() != 0,
        };
        let mut nodes = KVec::new();
        for number in 0..devices as u8 {
            nodes.push(Node::new(number, config)?, GFP_KERNEL)?;
        }
        let dmirrors = dmirrors()?;
        let mut shown = 0;
        for node in &nodes {
            match node.register() {
                Ok(()) => shown += 1,
                Err(error) if shown == 0 => return Err(error),
                Err(_) => {
                    pr_err!("device {shown} and those behind it cannot be registered\n");
                    break;
                }
            }
        }
        pr_info!("{shown} devices, {} MiB of device memory each\n", config.vram_bytes >> 20);
        Ok(Fencepost { _nodes: nodes, _dmirrors: dmirrors })
    }
}
