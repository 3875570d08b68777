//! The reference driver's worlds in user space: [`live`] serves real system calls of real processes;
//! [`sim`] is deterministic, for tests of the driver itself. Owns no behaviour of the driver.

pub mod live;
pub mod sim;
