//! The short form: a few worlds from fixed seeds, all invariants on the way.

use super::{Options, run};

#[test]
fn a_short_run_finds_nothing() {
    let options = Options { seed: None, calls: 6_000, world: 1_500, check: 20 };
    let totals = run(20_261_120, options).unwrap_or_else(|found| panic!("{}", found.join("\n")));
    assert_eq!(totals.calls, 6_000);
    assert!(totals.succeeded > 1_500, "most calls are valid: {totals:?}");
    assert!(totals.jobs > 0 && totals.unwound > 0, "the calls reach far: {totals:?}");
    assert!(totals.shared > 0 && totals.moved > 0, "also shared memory: {totals:?}");
}

#[test]
fn the_generator_knows_every_delay_point() {
    let names = fencepost_core::debug::delay::POINTS.iter().map(|(_, name, _)| *name);
    assert!(names.eq(fencepost_fixtures::device::fuzz::POINTS.iter().copied()));
}
