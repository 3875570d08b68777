//! The main path: create, bind, run, wait, read back, close without a trace.

use crate::client::*;
use fencepost_uapi::fencepost::*;

#[test]
fn a_store_reaches_the_object() {
    for placement in [REGION_SYSTEM, REGION_VRAM, REGION_SYSTEM | REGION_VRAM] {
        let sim = sim();
        let c = Client::new(&sim);
        let gpu = Gpu::new(&c);
        let bo = c.bo(K64, placement);
        c.bind(gpu.vm, &[map(bo, 0x10_0000, K64, 0)]).expect("binds");
        gpu.run(&[store(0x10_0008, 0x1234)]);
        assert_eq!(c.peek(bo, 8), 0x1234);
        assert_eq!(gpu.read(0x10_0008), 0x1234);
        assert_eq!(c.counter("jobs.completed"), 2);
        c.close();
        assert_clean(&sim);
    }
}
