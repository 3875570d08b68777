//! Tests of the buddy allocator: block sizes, merging, exhaustion, a random comparison.

use super::{Allocation, Buddy};
use crate::facade::rank::FencePath;
use crate::seed::for_seeds;
use fencepost_uapi::Errno;

fn blocks(buddy: &Buddy, allocation: &Allocation) -> Vec<(u64, u64)> {
    let blocks: Vec<_> =
        buddy.blocks(allocation).map(|block| (block.frame, block.frames)).collect();
    assert_eq!(blocks.len(), allocation.blocks());
    assert_eq!(blocks.iter().map(|block| block.1).sum::<u64>(), allocation.frames());
    blocks
}

#[test]
fn largest_blocks_first() {
    let rows: [(u64, &[(u64, u64)]); 6] = [
        (1, &[(0, 1)]),
        (16, &[(0, 16)]),
        (17, &[(0, 16), (16, 1)]),
        (31, &[(0, 16), (16, 8), (24, 4), (28, 2), (30, 1)]),
        (100, &[(0, 64), (64, 32), (96, 4)]),
        (1 << 15, &[(0, 1 << 14), (1 << 14, 1 << 14)]),
    ];
    for (frames, expected) in rows {
        let mut buddy = Buddy::new(1 << 16).expect("memory");
        let allocation = buddy.alloc(frames).expect("free");
        assert_eq!(blocks(&buddy, &allocation), expected, "{frames} frames");
        assert_eq!(buddy.used(), frames);
        buddy.assert_consistent();
        buddy.free(allocation);
        buddy.assert_consistent();
        assert_eq!(buddy.used(), 0);
    }
}

/// A size that is no power of two is covered, and every frame can be had.
#[test]
fn odd_sizes_are_used_to_the_last_frame() {
    for frames in [1, 2, 3, 7, 1000, (1 << 14) + 5] {
        let mut buddy = Buddy::new(frames).expect("memory");
        buddy.assert_consistent();
        let all = buddy.alloc(frames).expect("all of it");
        assert_eq!(buddy.alloc(1).err(), Some(Errno::NOMEM));
        buddy.assert_consistent();
        buddy.free(all);
        buddy.assert_consistent();
        let one = buddy.alloc(1).expect("free");
        assert_eq!(buddy.alloc(frames).err(), Some(Errno::NOMEM), "one is missing");
        assert_eq!(buddy.used(), 1, "nothing is taken by a refused request");
        buddy.free(one);
    }
    assert_eq!(Buddy::new(0).expect("memory").alloc(1).err(), Some(Errno::NOMEM));
}

/// In fragmented memory a request is served by smaller blocks.
#[test]
fn fragments_serve_a_large_request() {
    let mut buddy = Buddy::new(64).expect("memory");
    let mut all: Vec<_> = (0..64).map(|_| buddy.alloc(1).expect("free")).collect();
    all.sort_by_key(|allocation| allocation.first);
    let (even, odd): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|allocation| allocation.first % 2 == 0);
    even.into_iter().for_each(|allocation| buddy.free(allocation));
    buddy.assert_consistent();
    let scattered = buddy.alloc(32).expect("32 frames are free");
    assert!(blocks(&buddy, &scattered).iter().all(|block| block.1 == 1 && block.0 % 2 == 0));
    buddy.free(scattered);
    odd.into_iter().for_each(|allocation| buddy.free(allocation));
    buddy.assert_consistent();
    let whole = buddy.alloc(64).expect("all merged");
    assert_eq!(blocks(&buddy, &whole), [(0, 64)]);
    buddy.free(whole);
}

/// Random allocations never share a frame; none needs memory.
#[test]
fn random_allocations_are_disjoint() {
    for_seeds(20, |mut random| {
        let total = 3000;
        let mut buddy = Buddy::new(total).expect("memory");
        let mut owner = vec![0u32; total as usize];
        let mut live: Vec<(u32, Allocation)> = Vec::new();
        for name in 1..400 {
            let most = random.pick(&[1, 16, 600]);
            let frames = 1 + random.below(most);
            let free = total - buddy.used();
            let result = {
                let _path = FencePath::enter();
                buddy.alloc(frames)
            };
            assert_eq!(result.is_ok(), frames <= free, "{frames} of {free}");
            if let Ok(allocation) = result {
                for (frame, count) in blocks(&buddy, &allocation) {
                    let frames = &mut owner[frame as usize..(frame + count) as usize];
                    assert!(frames.iter().all(|owner| *owner == 0), "the frames were free");
                    frames.fill(name);
                }
                live.push((name, allocation));
            }
            while !live.is_empty() && random.one_in(2) {
                let (name, allocation) = live.swap_remove(random.below(live.len() as u64) as usize);
                owner.iter_mut().filter(|owner| **owner == name).for_each(|owner| *owner = 0);
                buddy.free(allocation);
            }
            buddy.assert_consistent();
            assert_eq!(buddy.used(), owner.iter().filter(|owner| **owner != 0).count() as u64);
        }
    });
}

#[test]
fn single_blocks_are_freed_in_any_pieces() {
    for_seeds(20, |mut random| {
        let mut buddy = Buddy::new(1 << 12).expect("memory");
        let mut used = vec![false; 1 << 12];
        for _ in 0..200 {
            let order = random.below(10) as u32;
            if let Some(first) = buddy.alloc_block(order) {
                assert_eq!(first % (1 << order), 0, "aligned to its size");
                let frames = &mut used[first as usize..first as usize + (1 << order)];
                assert!(frames.iter().all(|used| !used), "the frames were free");
                frames.fill(true);
            }
            // Some of what is in use, in runs that know nothing of the blocks.
            let mut at = random.below(1 << 12) as usize;
            let most = random.below(80) as usize;
            while random.one_in(3) && at < used.len() {
                let run = used[at..].iter().take(most).take_while(|used| **used).count();
                if run > 0 {
                    buddy.free_run(at as u64, run as u64);
                    used[at..at + run].fill(false);
                }
                at += run + 1;
            }
            buddy.assert_consistent();
            assert_eq!(buddy.used(), used.iter().filter(|used| **used).count() as u64);
        }
    });
}
