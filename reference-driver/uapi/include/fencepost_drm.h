/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The uAPI of the fencepost reference driver.
 *
 * Generated from fencepost-uapi by `cargo xtask header`; do not edit.
 * docs/UAPI.md says what the calls mean.
 */
#ifndef _FENCEPOST_DRM_H_
#define _FENCEPOST_DRM_H_

#include "drm.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* ---- ioctl numbers ---- */

#define DRM_FENCEPOST_QUERY                      0x00
#define DRM_FENCEPOST_GEM_CREATE                 0x01
#define DRM_FENCEPOST_GEM_MMAP_OFFSET            0x02
#define DRM_FENCEPOST_GEM_INFO                   0x03
#define DRM_FENCEPOST_VM_CREATE                  0x04
#define DRM_FENCEPOST_VM_DESTROY                 0x05
#define DRM_FENCEPOST_VM_BIND                    0x06
#define DRM_FENCEPOST_QUEUE_CREATE               0x07
#define DRM_FENCEPOST_QUEUE_DESTROY              0x08
#define DRM_FENCEPOST_QUEUE_INFO                 0x09
#define DRM_FENCEPOST_EXEC                       0x0a
#define DRM_FENCEPOST_WAIT_USER_FENCE            0x0b
#define DRM_FENCEPOST_FAULT_REPORT               0x0c
#define DRM_FENCEPOST_VA_DUMP                    0x0d
#define DRM_FENCEPOST_SVM_ATTR                   0x10
#define DRM_FENCEPOST_SVM_MIGRATE                0x11
#define DRM_FENCEPOST_SVM_EXCLUSIVE              0x12
#define DRM_FENCEPOST_SVM_QUERY                  0x13
#define DRM_FENCEPOST_DEBUG_OPEN                 0x30
#define DRM_FENCEPOST_DEBUG_INJECT               0x31
#define DRM_FENCEPOST_DEBUG_DELAY                0x32
#define DRM_FENCEPOST_DEBUG_EVICT                0x33
#define DRM_FENCEPOST_SVM_TUNE                   0x34
#define DRM_FENCEPOST_SVM_FAULTS                 0x35

#define DRM_IOCTL_FENCEPOST_QUERY \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_QUERY, struct drm_fencepost_query)
#define DRM_IOCTL_FENCEPOST_GEM_CREATE \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_GEM_CREATE, struct drm_fencepost_gem_create)
#define DRM_IOCTL_FENCEPOST_GEM_MMAP_OFFSET \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_GEM_MMAP_OFFSET, struct drm_fencepost_gem_mmap_offset)
#define DRM_IOCTL_FENCEPOST_GEM_INFO \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_GEM_INFO, struct drm_fencepost_gem_info)
#define DRM_IOCTL_FENCEPOST_VM_CREATE \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_VM_CREATE, struct drm_fencepost_vm_create)
#define DRM_IOCTL_FENCEPOST_VM_DESTROY \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_VM_DESTROY, struct drm_fencepost_vm_destroy)
#define DRM_IOCTL_FENCEPOST_VM_BIND \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_VM_BIND, struct drm_fencepost_vm_bind)
#define DRM_IOCTL_FENCEPOST_QUEUE_CREATE \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_QUEUE_CREATE, struct drm_fencepost_queue_create)
#define DRM_IOCTL_FENCEPOST_QUEUE_DESTROY \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_QUEUE_DESTROY, struct drm_fencepost_queue_destroy)
#define DRM_IOCTL_FENCEPOST_QUEUE_INFO \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_QUEUE_INFO, struct drm_fencepost_queue_info)
#define DRM_IOCTL_FENCEPOST_EXEC \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_EXEC, struct drm_fencepost_exec)
#define DRM_IOCTL_FENCEPOST_WAIT_USER_FENCE \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_WAIT_USER_FENCE, struct drm_fencepost_wait_user_fence)
#define DRM_IOCTL_FENCEPOST_FAULT_REPORT \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_FAULT_REPORT, struct drm_fencepost_fault_report)
#define DRM_IOCTL_FENCEPOST_VA_DUMP \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_VA_DUMP, struct drm_fencepost_va_dump)
#define DRM_IOCTL_FENCEPOST_SVM_ATTR \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_SVM_ATTR, struct drm_fencepost_svm_attr)
#define DRM_IOCTL_FENCEPOST_SVM_MIGRATE \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_SVM_MIGRATE, struct drm_fencepost_svm_migrate)
#define DRM_IOCTL_FENCEPOST_SVM_EXCLUSIVE \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_SVM_EXCLUSIVE, struct drm_fencepost_svm_exclusive)
#define DRM_IOCTL_FENCEPOST_SVM_QUERY \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_SVM_QUERY, struct drm_fencepost_svm_query)
#define DRM_IOCTL_FENCEPOST_DEBUG_OPEN \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_DEBUG_OPEN, struct drm_fencepost_debug_open)
#define DRM_IOCTL_FENCEPOST_DEBUG_INJECT \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_DEBUG_INJECT, struct drm_fencepost_debug_inject)
#define DRM_IOCTL_FENCEPOST_DEBUG_DELAY \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_DEBUG_DELAY, struct drm_fencepost_debug_delay)
#define DRM_IOCTL_FENCEPOST_DEBUG_EVICT \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_DEBUG_EVICT, struct drm_fencepost_debug_evict)
#define DRM_IOCTL_FENCEPOST_SVM_TUNE \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_SVM_TUNE, struct drm_fencepost_svm_tune)
#define DRM_IOCTL_FENCEPOST_SVM_FAULTS \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_SVM_FAULTS, struct drm_fencepost_svm_faults)
/* GPU page size. */
#define DRM_FENCEPOST_PAGE_SIZE                  4096ULL
/* Highest GPU address plus one: 48 bits, as four-level page tables give. */
#define DRM_FENCEPOST_VA_END                     (1ULL << 48)
/* Most operations in one struct drm_fencepost_vm_bind. */
#define DRM_FENCEPOST_MAX_OPS                    4096ULL
/* Most entries in one array of struct drm_fencepost_sync. */
#define DRM_FENCEPOST_MAX_SYNCS                  1024ULL
/* Most batches in one struct drm_fencepost_exec. */
#define DRM_FENCEPOST_MAX_BATCHES                64ULL
/* Longest batch in bytes. */
#define DRM_FENCEPOST_MAX_BATCH_BYTES            (1ULL << 20)
/* Largest buffer object in bytes. */
#define DRM_FENCEPOST_MAX_BO_BYTES               (1ULL << 34)

/* ---- query ---- */


/*
 * Asks for a block of information. Two-step: with size 0 the driver returns the size needed;
 * with a smaller size ENOSPC; with a larger one it writes what there is and returns that
 * size.
 */
struct drm_fencepost_query {
	/* QUERY_*. */
	__u32 query;
	/* Must be zero. */
	__u32 flags;
	/* Size of the block at data in bytes. */
	__u64 size;
	/* Receives the block. */
	__u64 data;
	/* Must be zero. */
	__u64 reserved;
};

/* struct drm_fencepost_query: one struct drm_fencepost_caps. */
#define DRM_FENCEPOST_QUERY_CAPS                 0
/* struct drm_fencepost_query: an array of struct drm_fencepost_region. */
#define DRM_FENCEPOST_QUERY_REGIONS              1
/*
 * struct drm_fencepost_query: an array of u64 counters of the whole device, in the order of
 * COUNTERS.
 */
#define DRM_FENCEPOST_QUERY_COUNTERS             2

/* What the device can do. */
struct drm_fencepost_caps {
	/* CAP_* bits. */
	__u64 caps;
	/* First GPU address that a VM can use. */
	__u64 va_start;
	/* One past the last. */
	__u64 va_end;
	/* Bit n set: pages of 1 << n bytes. */
	__u64 page_sizes;
	/* Number of execution engines. */
	__u32 engines;
	/* Most operations in one bind call. */
	__u32 max_ops;
	/* Most syncs in one call. */
	__u32 max_syncs;
	/* Most batches in one exec. */
	__u32 max_batches;
	/* Longest job time-out in milliseconds. */
	__u32 max_timeout_ms;
	/* Always zero. */
	__u32 pad;
	/* Frequency of the timestamp command in Hz. */
	__u64 timestamp_hz;
};

/* drm_fencepost_caps.caps: sparse regions. */
#define DRM_FENCEPOST_CAP_SPARSE                 (1ULL << 0)
/* drm_fencepost_caps.caps: NULL mappings. */
#define DRM_FENCEPOST_CAP_NULL                   (1ULL << 1)
/* drm_fencepost_caps.caps: prefetch operations. */
#define DRM_FENCEPOST_CAP_PREFETCH               (1ULL << 2)
/* drm_fencepost_caps.caps: madvise operations. */
#define DRM_FENCEPOST_CAP_MADVISE                (1ULL << 3)
/* drm_fencepost_caps.caps: PRIME import and export. */
#define DRM_FENCEPOST_CAP_PRIME                  (1ULL << 4)
/* drm_fencepost_caps.caps: objects in device memory are evicted under pressure. */
#define DRM_FENCEPOST_CAP_EVICTION               (1ULL << 5)
/* drm_fencepost_caps.caps: user fences. */
#define DRM_FENCEPOST_CAP_USER_FENCE             (1ULL << 6)
/* drm_fencepost_caps.caps: the debug group can be opened on this device. */
#define DRM_FENCEPOST_CAP_DEBUG                  (1ULL << 7)
/* drm_fencepost_caps.caps: atomics in device scope. */
#define DRM_FENCEPOST_CAP_ATOMICS_DEVICE         (1ULL << 8)
/*
 * drm_fencepost_caps.caps: atomics in system scope, against CPU atomics on a mapped buffer
 * object.
 */
#define DRM_FENCEPOST_CAP_ATOMICS_SYSTEM         (1ULL << 9)
/* drm_fencepost_caps.caps: a fault report per VM. */
#define DRM_FENCEPOST_CAP_FAULT_REPORT           (1ULL << 10)
/* drm_fencepost_caps.caps: SVM: VMs that take faults, mirrors of the caller's address space. */
#define DRM_FENCEPOST_CAP_SVM                    (1ULL << 11)

/* One memory region. */
struct drm_fencepost_region {
	/* REGION_* bit that names it in placements. */
	__u32 region;
	/* Always zero. */
	__u32 flags;
	/* Size in bytes. */
	__u64 size;
	/* Bytes in use now. */
	__u64 used;
	/* Smallest allocation in bytes. */
	__u64 min_page;
	/* Always zero. */
	__u64 reserved;
};

/* System memory. */
#define DRM_FENCEPOST_REGION_SYSTEM              1
/* Device memory (VRAM). */
#define DRM_FENCEPOST_REGION_VRAM                2

/* ---- GEM ---- */


/*
 * Creates a buffer object, filled with zeros. With both placements it goes to VRAM, driving
 * out idle objects that may live in system memory, least recently used first; without
 * success to system memory. With VRAM alone objects in use are waited for as well. ENOSPC:
 * larger than any region it may be placed in; ENOMEM: no memory now, even after eviction.
 */
struct drm_fencepost_gem_create {
	/* Must be zero. */
	__u64 extensions;
	/* Size in bytes, a multiple of 4 KiB, not 0, at most DRM_FENCEPOST_MAX_BO_BYTES. */
	__u64 size;
	/* Regions it may live in, first choice VRAM; 0 or an unknown bit: EINVAL. */
	__u32 placement;
	/* GEM_CREATE_*. */
	__u32 flags;
	/* With DRM_FENCEPOST_GEM_CREATE_VM_PRIVATE the VM; else must be zero. */
	__u32 vm_id;
	/* The new object's handle, never 0. */
	__u32 handle;
	/* Must be zero. */
	__u64 reserved[2];
};

/*
 * The object is used by one VM only and shares its reservation lock: it cannot be exported
 * (EINVAL) nor bound in another VM (EINVAL).
 */
#define DRM_FENCEPOST_GEM_CREATE_VM_PRIVATE      1

/*
 * Gives the offset to pass to mmap(2) on the same device file. A mapping begins with the
 * object (else EINVAL) and is no longer than it (EINVAL); the file needs a handle of it
 * (EACCES). As drm_gem_mmap.
 */
struct drm_fencepost_gem_mmap_offset {
	/* The object. */
	__u32 handle;
	/* Must be zero. */
	__u32 flags;
	/* The offset in bytes. */
	__u64 offset;
	/* Must be zero. */
	__u64 reserved;
};


/* Tells where an object is. */
struct drm_fencepost_gem_info {
	/* The object. */
	__u32 handle;
	/* Must be zero. */
	__u32 pad;
	/* Size in bytes. */
	__u64 size;
	/* Regions it may live in. */
	__u32 placement;
	/* The region that it lives in now. */
	__u32 resident;
	/* Flags of its creation. */
	__u32 flags;
	/* Number of GPU mappings (VAs) of it in all VMs. */
	__u32 mappings;
	/* Number of times that it was evicted. */
	__u64 evictions;
	/* Must be zero. */
	__u64 reserved;
};


/* ---- VM ---- */


/*
 * Creates a GPU address space. The hole kernel_start, kernel_start + kernel_size) is kept
 * from binds, as by nouveau's VM_INIT; overflow, a hole outside the space, or a size without
 * alignment to 4 KiB: EINVAL.
 */
struct drm_fencepost_vm_create {
	/* Must be zero. */
	__u64 extensions;
	/* VM_CREATE_*. */
	__u32 flags;
	/* The new VM, never 0. */
	__u32 vm_id;
	/* Start of the kernel-reserved hole. */
	__u64 kernel_start;
	/* Size of the hole; 0: none. */
	__u64 kernel_size;
	/* One past the highest address; 0 means DRM_FENCEPOST_VA_END, beyond it EINVAL. */
	__u64 va_end;
	/* Must be zero. */
	__u64 reserved[2];
};

/*
 * A long-running VM: jobs may run without bound and so make no dma_fence: out-syncobjs of
 * its exec and bind calls are EOPNOTSUPP, user fences are used in their place.
 */
#define DRM_FENCEPOST_VM_CREATE_LONG_RUNNING     1
/*
 * A VM that takes faults: an access that finds no translation in a mirror
 * (DRM_FENCEPOST_BIND_CPU_MIRROR) waits until the driver has asked the CPU's address space,
 * and faults only when that has nothing there. The address space is that of the caller.
 * Without DRM_FENCEPOST_VM_CREATE_LONG_RUNNING: EINVAL, since no fence may wait for a page;
 * without DRM_FENCEPOST_CAP_SVM: EOPNOTSUPP.
 */
#define DRM_FENCEPOST_VM_CREATE_FAULT            2

/* Destroys a VM. EBUSY while queues use it. */
struct drm_fencepost_vm_destroy {
	/* The VM. */
	__u32 vm_id;
	/* Must be zero. */
	__u32 pad;
	/* Must be zero. */
	__u64 reserved;
};


/*
 * Changes mappings. All operations happen or none does. Without DRM_FENCEPOST_VM_BIND_ASYNC
 * the call takes no syncs (EINVAL) and returns when the page tables are written. With it the
 * call returns once the address space is updated; page tables are written after the
 * in-fences, in the order of the bind queue's calls, and then the out-fences signal. A VM
 * whose asynchronous bind failed is banned: ENOENT from then on.
 */
struct drm_fencepost_vm_bind {
	/* Must be zero. */
	__u64 extensions;
	/* The VM. */
	__u32 vm_id;
	/* A bind queue of that VM, 0 for its default one. Other classes, other VMs: EINVAL. */
	__u32 queue_id;
	/* VM_BIND_*. */
	__u32 flags;
	/* Number of struct drm_fencepost_bind_op; 0: synchronise only. */
	__u32 num_ops;
	/* Size of one operation, at least 64. */
	__u32 op_stride;
	/* Size of one sync, at least 32. */
	__u32 sync_stride;
	/* Array of struct drm_fencepost_bind_op. */
	__u64 ops;
	/* Number of struct drm_fencepost_sync. */
	__u32 num_syncs;
	/* Must be zero. */
	__u32 pad;
	/* Array of struct drm_fencepost_sync. */
	__u64 syncs;
	/* Must be zero. */
	__u64 reserved;
};

/* drm_fencepost_vm_bind.flags: see there. */
#define DRM_FENCEPOST_VM_BIND_ASYNC              1

/* One operation of a bind call. */
struct drm_fencepost_bind_op {
	/* BIND_OP_*. */
	__u32 op;
	/* BIND_* bits; which are allowed depends on the operation, others: EINVAL. */
	__u32 flags;
	/* The object to map or, for unmap-all, to unmap (0 there: EINVAL); else must be 0. */
	__u32 handle;
	/* Page kind 0 to 255 (map only), carried into page-table entries and the VA dump. */
	__u32 kind;
	/* GPU address. */
	__u64 addr;
	/* Size; 0: EINVAL but for unmap-all, where addr and range must be 0. */
	__u64 range;
	/* Offset into the object; offset + range beyond the object: EINVAL. */
	__u64 offset;
	/* Prefetch: the region (REGION_*). Madvise: the preferred region, 0 for none. Else 0. */
	__u64 value;
	/* Must be zero. */
	__u64 reserved[2];
};

/*
 * Map an object, NULL (DRM_FENCEPOST_BIND_NULL) or a sparse region
 * (DRM_FENCEPOST_BIND_SPARSE), replacing what is mapped there. A memory mapping that crosses
 * the edge of a sparse region: ENOSPC. A sparse region that overlaps a region: EEXIST; a
 * mapping: ENOSPC.
 */
#define DRM_FENCEPOST_BIND_OP_MAP                0
/*
 * Unmap a range: mappings are split, holes are fine. Inside a sparse region the sparse
 * behaviour comes back. With DRM_FENCEPOST_BIND_SPARSE: remove exactly that region (ENOENT)
 * and all within. Until the page tables are written the region takes no mapping (EINVAL),
 * keeps its range from other regions (EEXIST) and cannot be removed again (ENOENT), in the
 * same call neither.
 */
#define DRM_FENCEPOST_BIND_OP_UNMAP              1
/* Unmap every mapping of an object in this VM. */
#define DRM_FENCEPOST_BIND_OP_UNMAP_ALL          2
/*
 * Move the objects mapped in the range to a region; nothing mapped there: no effect. A
 * region that an object may not be in is skipped for that object. Pages of a mirror are
 * moved as far as they can be, and mapped; those that the CPU has nothing for are skipped.
 */
#define DRM_FENCEPOST_BIND_OP_PREFETCH           3
/* Set the preferred region of object-less mappings (NULL, mirrors), splitting at the edges. */
#define DRM_FENCEPOST_BIND_OP_MADVISE            4
/* The GPU may only read: a write or atomic faults. */
#define DRM_FENCEPOST_BIND_READONLY              1
/* Map nothing: reads give 0, writes are dropped. No handle, no offset. */
#define DRM_FENCEPOST_BIND_NULL                  2
/*
 * The operation is about a sparse region: reads of unbacked parts give 0, writes are
 * dropped.
 */
#define DRM_FENCEPOST_BIND_SPARSE                4
/*
 * Mirror the CPU's address space: GPU addresses show what the CPU has at the same addresses,
 * from the first access on. No handle, offset, kind or other flag. EOPNOTSUPP unless the VM
 * is one of DRM_FENCEPOST_VM_CREATE_FAULT. Unmapping or replacing a mirror of which pages
 * were mapped: EBUSY, until the CPU has unmapped them; but by a mirror it can be replaced.
 */
#define DRM_FENCEPOST_BIND_CPU_MIRROR            8

/*
 * A synchronisation point. In-fences of a syncobj that has none: EINVAL; unknown handle:
 * ENOENT; a timeline point of 0: EINVAL. A user fence needs DRM_FENCEPOST_SYNC_SIGNAL
 * (EOPNOTSUPP), an address aligned to 8 (EINVAL), and there is one at most in a call
 * (EINVAL).
 */
struct drm_fencepost_sync {
	/* SYNC_*. */
	__u32 kind;
	/* DRM_FENCEPOST_SYNC_SIGNAL or 0 to wait. */
	__u32 flags;
	/* The syncobj; 0 for a user fence. */
	__u32 handle;
	/* Must be zero. */
	__u32 pad;
	/* The timeline point, or the value that a user fence writes; else 0. */
	__u64 value;
	/*
	 * User fence: where 8 bytes are written, a CPU address for binds (soon after the bind has
	 * signalled), a GPU address for exec (before); else 0.
	 */
	__u64 addr;
};

/* A binary syncobj. */
#define DRM_FENCEPOST_SYNC_SYNCOBJ               0
/* A point of a timeline syncobj. */
#define DRM_FENCEPOST_SYNC_TIMELINE              1
/* A user fence. */
#define DRM_FENCEPOST_SYNC_USER_FENCE            2
/* Signal after the work in place of waiting before it. */
#define DRM_FENCEPOST_SYNC_SIGNAL                1

/* ---- queues and execution ---- */


/* Creates a queue. */
struct drm_fencepost_queue_create {
	/* Must be zero. */
	__u64 extensions;
	/* The VM that it works in. */
	__u32 vm_id;
	/* QUEUE_CLASS_*. */
	__u32 class;
	/* Must be zero. */
	__u32 flags;
	/* 0 low, 1 normal, 2 high. */
	__u32 priority;
	/*
	 * Time a job may run in milliseconds; 0 for the default of 10,000; above
	 * drm_fencepost_caps.max_timeout_ms: EINVAL.
	 */
	__u32 timeout_ms;
	/* The new queue, never 0. */
	__u32 queue_id;
	/* Engine to run on (below drm_fencepost_caps.engines); must be 0 for a bind queue. */
	__u32 engine;
	/* Must be zero. */
	__u32 pad;
	/* Must be zero. */
	__u64 reserved[2];
};

/* Runs batches. */
#define DRM_FENCEPOST_QUEUE_CLASS_EXEC           0
/* Orders binds. */
#define DRM_FENCEPOST_QUEUE_CLASS_BIND           1

/*
 * Destroys a queue. Jobs of an exec queue are cancelled, their out-fences signal with
 * ECANCELED. Those of a bind queue still happen, since their calls have changed the address
 * space already.
 */
struct drm_fencepost_queue_destroy {
	/* The queue. */
	__u32 queue_id;
	/* Must be zero. */
	__u32 pad;
	/* Must be zero. */
	__u64 reserved;
};


/* Tells the state of a queue. */
struct drm_fencepost_queue_info {
	/* The queue. */
	__u32 queue_id;
	/* Must be zero. */
	__u32 pad;
	/* QUEUE_STATE_*. */
	__u32 state;
	/* Resets of its engine that this queue caused. */
	__u32 resets;
	/* Jobs submitted. */
	__u64 submitted;
	/* Jobs finished, with or without an error. */
	__u64 completed;
	/* Must be zero. */
	__u64 reserved[2];
};

/* The queue works. */
#define DRM_FENCEPOST_QUEUE_STATE_ACTIVE         0
/* A job of it faulted or timed out: exec is ECANCELED. */
#define DRM_FENCEPOST_QUEUE_STATE_BANNED         1

/*
 * Submits batches. Always asynchronous. Banned queue: ECANCELED; bind queue: EINVAL; banned
 * VM: ENOENT; more than 256 unfinished jobs of the queue: EAGAIN. With no batch: syncs only.
 */
struct drm_fencepost_exec {
	/* Must be zero. */
	__u64 extensions;
	/* The queue. */
	__u32 queue_id;
	/* Must be zero. */
	__u32 flags;
	/* Array of struct drm_fencepost_batch. */
	__u64 batches;
	/* Array of struct drm_fencepost_sync. */
	__u64 syncs;
	/* Number of batches. */
	__u32 num_batches;
	/* Size of one batch record, at least 16. */
	__u32 batch_stride;
	/* Number of syncs. */
	__u32 num_syncs;
	/* Size of one sync, at least 32. */
	__u32 sync_stride;
	/* Must be zero. */
	__u64 reserved[2];
};


/* One batch: commands of crate::command in GPU memory. */
struct drm_fencepost_batch {
	/* GPU address, a multiple of 8. */
	__u64 addr;
	/* Length in bytes, a multiple of 8, not 0, at most DRM_FENCEPOST_MAX_BATCH_BYTES. */
	__u32 length;
	/* Must be zero. */
	__u32 flags;
};


/*
 * Waits until (*addr & mask) compares with value. ETIME when the time is over; EIO when
 * queue_id is given and banned; EFAULT for a bad address; EINTR with the rest of a relative
 * time written back.
 */
struct drm_fencepost_wait_user_fence {
	/* Must be zero. */
	__u64 extensions;
	/* CPU address, a multiple of 8. */
	__u64 addr;
	/* WAIT_OP_*. */
	__u32 op;
	/* DRM_FENCEPOST_WAIT_ABSOLUTE or 0. */
	__u32 flags;
	/* To compare with. */
	__u64 value;
	/* Which bits; 0: EINVAL. */
	__u64 mask;
	/* Nanoseconds: relative, or absolute CLOCK_MONOTONIC; negative: for ever. */
	__s64 timeout_ns;
	/* A queue whose ban ends the wait, or 0. */
	__u32 queue_id;
	/* Must be zero. */
	__u32 pad;
	/* Must be zero. */
	__u64 reserved[2];
};

/* Equal. */
#define DRM_FENCEPOST_WAIT_OP_EQ                 0
/* Not equal. */
#define DRM_FENCEPOST_WAIT_OP_NEQ                1
/* Greater. */
#define DRM_FENCEPOST_WAIT_OP_GT                 2
/* Greater or equal. */
#define DRM_FENCEPOST_WAIT_OP_GTE                3
/* Less. */
#define DRM_FENCEPOST_WAIT_OP_LT                 4
/* Less or equal. */
#define DRM_FENCEPOST_WAIT_OP_LTE                5
/* drm_fencepost_wait_user_fence.timeout_ns is absolute. */
#define DRM_FENCEPOST_WAIT_ABSOLUTE              1

/* ---- reports ---- */


/*
 * Reads the oldest faults of a VM. Up to num records are written; num becomes the number
 * there is; lost counts those that the ring of 64 had no room for.
 */
struct drm_fencepost_fault_report {
	/* The VM, banned or not. */
	__u32 vm_id;
	/* DRM_FENCEPOST_FAULT_REPORT_CLEAR or 0. */
	__u32 flags;
	/* In: room. Out: faults recorded. */
	__u32 num;
	/* Size of one record, at least 40. */
	__u32 stride;
	/* Array of struct drm_fencepost_fault. */
	__u64 faults;
	/* Faults that were not recorded. */
	__u64 lost;
	/* Must be zero. */
	__u64 reserved[2];
};

/* Forget the faults that were returned. */
#define DRM_FENCEPOST_FAULT_REPORT_CLEAR         1

/* One fault. */
struct drm_fencepost_fault {
	/* The GPU address of the access, to the byte. */
	__u64 addr;
	/* FAULT_ACCESS_*. */
	__u32 access;
	/* FAULT_KIND_*. */
	__u32 kind;
	/* The queue. */
	__u32 queue_id;
	/* Always zero. */
	__u32 pad;
	/* Job of that queue, counted from 1. */
	__u64 job;
	/* Time in nanoseconds, CLOCK_MONOTONIC. */
	__u64 time_ns;
};

/* A load, the source of a copy, a semaphore wait. */
#define DRM_FENCEPOST_FAULT_ACCESS_READ          0
/* A store, fill, the target of a copy, a semaphore release, a timestamp. */
#define DRM_FENCEPOST_FAULT_ACCESS_WRITE         1
/* An atomic. */
#define DRM_FENCEPOST_FAULT_ACCESS_ATOMIC        2
/* The fetch of a command. */
#define DRM_FENCEPOST_FAULT_ACCESS_FETCH         3
/* Nothing is mapped there. */
#define DRM_FENCEPOST_FAULT_KIND_NOT_PRESENT     0
/* The mapping is read-only. */
#define DRM_FENCEPOST_FAULT_KIND_PERMISSION      1
/* The address is outside the address space, or not aligned for an atomic. */
#define DRM_FENCEPOST_FAULT_KIND_ADDRESS         2
/* The translation led to memory that is not there: a stale page-table or TLB entry. */
#define DRM_FENCEPOST_FAULT_KIND_BUS             3
/* The command is unknown or malformed. */
#define DRM_FENCEPOST_FAULT_KIND_COMMAND         4

/*
 * Lists the mappings in start, end) in ascending order: up to num records are written, num
 * becomes the number there is.
 */
struct drm_fencepost_va_dump {
	/* The VM, banned or not. */
	__u32 vm_id;
	/* Must be zero. */
	__u32 flags;
	/* In: room. Out: mappings. */
	__u32 num;
	/* Size of one record, at least 64. */
	__u32 stride;
	/* Array of struct drm_fencepost_va. */
	__u64 vas;
	/* First address. */
	__u64 start;
	/* One past the last; 0: all of the VM. Below start: EINVAL. */
	__u64 end;
	/* Must be zero. */
	__u64 reserved[2];
};


/*
 * One mapping, or a sparse region (flag DRM_FENCEPOST_BIND_SPARSE, listed before what is
 * inside).
 */
struct drm_fencepost_va {
	/* GPU address. */
	__u64 addr;
	/* Size. */
	__u64 range;
	/* Offset into the object. */
	__u64 offset;
	/* A handle of the object in this file; 0: none (NULL, sparse, or the handle is closed). */
	__u32 handle;
	/* BIND_* bits. */
	__u32 flags;
	/* Page kind. */
	__u32 kind;
	/* The region that the object lives in now; 0: none. */
	__u32 resident;
	/* Valid page-table entries of 2 MiB in the range. */
	__u32 ptes_2m;
	/* Of 64 KiB. */
	__u32 ptes_64k;
	/* Of 4 KiB. */
	__u32 ptes_4k;
	/* Preferred region set by madvise. */
	__u32 preferred;
	/* Number that tells objects apart across files; 0: none. */
	__u64 object;
};


/* ---- SVM ---- */


/*
 * Sets or gets an attribute of addresses, which holds for the mirrors of the VM, whatever
 * the CPU maps there. Setting the value that is set already has no effect; another one takes
 * the pages out of the page tables, so that the next access sees it. EOPNOTSUPP: the VM does
 * not take faults; EINVAL: no size, or a range beyond the VM, a value out of range.
 * Unbinding a mirror forgets its attributes.
 */
struct drm_fencepost_svm_attr {
	/* Must be zero. */
	__u64 extensions;
	/* The VM. */
	__u32 vm_id;
	/* DRM_FENCEPOST_SVM_ATTR_SET or DRM_FENCEPOST_SVM_ATTR_GET. */
	__u32 op;
	/* SVM_ATTR_*: which one. */
	__u32 attr;
	/* Must be zero. */
	__u32 flags;
	/* First address. */
	__u64 start;
	/* Size of the range in bytes. */
	__u64 size;
	/* The value; got: DRM_FENCEPOST_SVM_ATTR_MIXED when not all addresses have the same. */
	__u64 value;
	/* Must be zero. */
	__u64 reserved;
};

/* drm_fencepost_svm_attr.op: set the attribute. */
#define DRM_FENCEPOST_SVM_ATTR_SET               0
/* drm_fencepost_svm_attr.op: get it. */
#define DRM_FENCEPOST_SVM_ATTR_GET               1
/*
 * drm_fencepost_svm_attr.attr: the region that a GPU access moves pages to: REGION_*, or 0
 * for none, the default: pages stay where they are. A page that cannot move is used where it
 * is.
 */
#define DRM_FENCEPOST_SVM_ATTR_PREFERRED         0
/* drm_fencepost_svm_attr.attr: what atomics of the device may do: SVM_ATOMIC_*. */
#define DRM_FENCEPOST_SVM_ATTR_ATOMIC            1
/* drm_fencepost_svm_attr.attr: which pages move: SVM_POLICY_*. */
#define DRM_FENCEPOST_SVM_ATTR_POLICY            2
/*
 * drm_fencepost_svm_attr.attr: for how many nanoseconds pages that were moved to device
 * memory stay, though the CPU touches them; the access waits meanwhile. At most
 * 1,000,000,000. Eviction does not ask.
 */
#define DRM_FENCEPOST_SVM_ATTR_TIMESLICE         3
/* Not one value. */
#define DRM_FENCEPOST_SVM_ATTR_MIXED             18446744073709551615ULL
/* Atomics make a page of system memory exclusive to the device until the CPU touches it. */
#define DRM_FENCEPOST_SVM_ATOMIC_UNDEFINED       0ULL
/*
 * Atomics of the device work on system memory as it is; they are not atomic against the
 * CPU's.
 */
#define DRM_FENCEPOST_SVM_ATOMIC_DEVICE          1ULL
/* Atomics move the page to device memory; where that fails, as undefined. */
#define DRM_FENCEPOST_SVM_ATOMIC_GLOBAL          2ULL
/* Atomics of the device fault (kind PERMISSION). */
#define DRM_FENCEPOST_SVM_ATOMIC_CPU             3ULL
/*
 * All pages that can; those in the memory of another device of the driver move from there
 * directly.
 */
#define DRM_FENCEPOST_SVM_POLICY_ALL             0ULL
/*
 * Pages of system memory; those in the memory of another device stay, which
 * DRM_FENCEPOST_SVM_MIGRATE_STRICT tells as EBUSY. An access of the GPU still brings them to
 * system memory.
 */
#define DRM_FENCEPOST_SVM_POLICY_SYSTEM          1ULL

/*
 * Moves the pages of a range of the caller's address space to a region. Best effort, as
 * nouveau's SVM_BIND: what cannot be moved (holes, shared and pinned pages, no memory) is
 * left out, and the call succeeds. With DRM_FENCEPOST_SVM_MIGRATE_STRICT all pages move or
 * none does, as drm_pagemap_migrate_to_devmem: EINVAL: not within one mapping of the CPU;
 * ENOENT: nothing mapped; EBUSY: not private anonymous memory, or a page that does not move
 * now; ENOMEM: no memory there, also after eviction; EIO: the copy failed. None means that
 * each is where it was; what was in another device's memory may be in the system's.
 * EOPNOTSUPP: the VM does not take faults; EINVAL: no size, a range beyond the VM; EFAULT:
 * the address space has ended.
 */
struct drm_fencepost_svm_migrate {
	/* Must be zero. */
	__u64 extensions;
	/* The VM. */
	__u32 vm_id;
	/* DRM_FENCEPOST_SVM_MIGRATE_STRICT or 0. */
	__u32 flags;
	/* First address. */
	__u64 start;
	/* Size of the range in bytes. */
	__u64 size;
	/* Where to: one of REGION_*, else EINVAL. */
	__u32 region;
	/* Must be zero. */
	__u32 pad;
	/* Pages that moved. */
	__u64 pages;
	/* Must be zero. */
	__u64 reserved;
};

/* All or nothing. */
#define DRM_FENCEPOST_SVM_MIGRATE_STRICT         1

/*
 * Makes the pages of a range exclusive to the device and maps them, so that atomics work:
 * until the CPU touches a page, only the device accesses it. Pages in device memory are
 * moved to system memory before. EFAULT: nothing mapped, or not writable; EOPNOTSUPP: not
 * private anonymous memory, or the VM does not take faults; EINVAL: no size, or a range that
 * is not in mirrors of the VM; EACCES: DRM_FENCEPOST_SVM_ATOMIC_CPU is set there; EBUSY: a
 * page that others hold; ENOMEM. The pages before the one that failed stay exclusive; pages
 * says how many in any case.
 */
struct drm_fencepost_svm_exclusive {
	/* Must be zero. */
	__u64 extensions;
	/* The VM. */
	__u32 vm_id;
	/* Must be zero. */
	__u32 flags;
	/* First address. */
	__u64 start;
	/* Size of the range in bytes. */
	__u64 size;
	/* Pages that became exclusive. */
	__u64 pages;
	/* Must be zero. */
	__u64 reserved[2];
};


/*
 * Tells of each page of a range what the CPU and the GPU have there, now, and faults nothing
 * in. One u32 a page is written. EOPNOTSUPP: the VM does not take faults; EINVAL: no size,
 * more than 1 GiB, a range beyond the VM; EFAULT: a bad address, or the address space has
 * ended; EBUSY: the address space did not stand still for a second.
 */
struct drm_fencepost_svm_query {
	/* Must be zero. */
	__u64 extensions;
	/* The VM. */
	__u32 vm_id;
	/* Must be zero. */
	__u32 flags;
	/* First address. */
	__u64 start;
	/* Size of the range in bytes. */
	__u64 size;
	/* Receives size / 4096 numbers of SVM_PAGE_* bits. */
	__u64 pages;
	/* Must be zero. */
	__u64 reserved[2];
};

/* The CPU has a page there, which may be read. */
#define DRM_FENCEPOST_SVM_PAGE_READ              1
/* And written. */
#define DRM_FENCEPOST_SVM_PAGE_WRITE             2
/* Nothing can be had there: no mapping, or one without permissions. */
#define DRM_FENCEPOST_SVM_PAGE_ERROR             4
/* The zero page, where the world can tell. */
#define DRM_FENCEPOST_SVM_PAGE_ZERO              8
/* This VM's page tables show the page. */
#define DRM_FENCEPOST_SVM_PAGE_GPU_READ          16
/* And let it be written. */
#define DRM_FENCEPOST_SVM_PAGE_GPU_WRITE         32
/* And let atomics be done. */
#define DRM_FENCEPOST_SVM_PAGE_GPU_ATOMIC        64
/* A range of this VM covers the address. */
#define DRM_FENCEPOST_SVM_PAGE_RANGE             128
/* Where the page is: SVM_LOCATION_*. */
#define DRM_FENCEPOST_SVM_PAGE_LOCATION_MASK     768
/* See DRM_FENCEPOST_SVM_PAGE_LOCATION_MASK. */
#define DRM_FENCEPOST_SVM_PAGE_LOCATION_SHIFT    8
/* The CPU maps it with its neighbours as one: 1 << this many pages. */
#define DRM_FENCEPOST_SVM_PAGE_ORDER_MASK        2031616
/* See DRM_FENCEPOST_SVM_PAGE_ORDER_MASK. */
#define DRM_FENCEPOST_SVM_PAGE_ORDER_SHIFT       16
/* The GPU maps it with its neighbours as one: 1 << this many pages: 0, 4, 9. */
#define DRM_FENCEPOST_SVM_PAGE_GPU_ORDER_MASK    520093696
/* See DRM_FENCEPOST_SVM_PAGE_GPU_ORDER_MASK. */
#define DRM_FENCEPOST_SVM_PAGE_GPU_ORDER_SHIFT   24
/* Nothing is populated there, or it is exclusive to a device. */
#define DRM_FENCEPOST_SVM_LOCATION_NONE          0
/* System memory. */
#define DRM_FENCEPOST_SVM_LOCATION_SYSTEM        1
/* Memory of this device. */
#define DRM_FENCEPOST_SVM_LOCATION_DEVICE        2
/* Memory of another device. */
#define DRM_FENCEPOST_SVM_LOCATION_OTHER         3

/* ---- debug group ---- */


/*
 * Makes this open file a testing one. EPERM unless the device was started for testing. Until
 * then every other call of the group is EPERM.
 */
struct drm_fencepost_debug_open {
	/* Must be zero. */
	__u64 flags;
	/* Must be zero. */
	__u64 reserved;
};


/*
 * Arms a failure for calls made through this open file: the nth operation of that kind from
 * now (1: the next) fails once. nth 0 disarms. Always reports the previous state.
 */
struct drm_fencepost_debug_inject {
	/* INJECT_*. */
	__u32 kind;
	/* Must be zero. */
	__u32 flags;
	/* Which one fails. */
	__u64 nth;
	/* Operations of that kind since the last arming. */
	__u64 seen;
	/* 1 if the armed failure happened. */
	__u64 fired;
	/* Must be zero. */
	__u64 reserved;
};

/* An allocation of the driver. */
#define DRM_FENCEPOST_INJECT_ALLOC               0
/* A copy between regions. */
#define DRM_FENCEPOST_INJECT_COPY                1
/* A DMA mapping. */
#define DRM_FENCEPOST_INJECT_DMA_MAP             2
/* An asynchronous page-table update: the VM is banned. */
#define DRM_FENCEPOST_INJECT_ASYNC_BIND          3
/*
 * Device or system memory for the pages of a migration, also of one that the CPU or the GPU
 * caused in a VM of this open file. A larger piece is then moved in pages of 4 KiB.
 */
#define DRM_FENCEPOST_INJECT_MIGRATE             4

/*
 * Holds whoever comes by a named delay point of the driver (list: docs/UAPI.md). Unknown
 * name: ENOENT. An armed point lets go by itself after timeout_ms, and when the file closes.
 */
struct drm_fencepost_debug_delay {
	/* The name, padded with zeros. */
	__u8 name[32];
	/* DELAY_*. */
	__u32 action;
	/* Arm: how long at most. Wait: longest wait, then ETIME. Both 1 to 60,000; else 0. */
	__u32 timeout_ms;
	/* How often the point was passed since it was armed. */
	__u64 hits;
	/* Held there now. */
	__u64 held;
	/* Must be zero. */
	__u64 reserved;
};

/* Hold whoever comes. */
#define DRM_FENCEPOST_DELAY_ARM                  0
/* Let go and disarm. */
#define DRM_FENCEPOST_DELAY_RELEASE              1
/* Wait until somebody is held. */
#define DRM_FENCEPOST_DELAY_WAIT                 2
/* Only report. */
#define DRM_FENCEPOST_DELAY_STATE                3

/* Evicts objects from VRAM to system memory. EBUSY: an object's only placement is VRAM. */
struct drm_fencepost_debug_evict {
	/* The object; 0: every object of the device that may leave. */
	__u32 handle;
	/* DRM_FENCEPOST_DEBUG_EVICT_SVM or 0. */
	__u32 flags;
	/* Bytes moved. */
	__u64 bytes;
	/* Must be zero. */
	__u64 reserved;
};

/* Memory that SVM has in VRAM leaves it, in place of objects; handle must be 0 (EINVAL). */
#define DRM_FENCEPOST_DEBUG_EVICT_SVM            1

/*
 * Sets a parameter of SVM, or only tells it. EINVAL: a value out of range. A parameter of
 * VMs holds for those made through this open file from then on; one of the device until this
 * open file closes.
 */
struct drm_fencepost_svm_tune {
	/* SVM_TUNE_*. */
	__u32 param;
	/* DRM_FENCEPOST_SVM_TUNE_SET or 0. */
	__u32 flags;
	/* In: the new value. Out: the value before. */
	__u64 value;
	/* Must be zero. */
	__u64 reserved[2];
};

/* Set the parameter. */
#define DRM_FENCEPOST_SVM_TUNE_SET               1
/*
 * Of VMs: size of the window of a notifier in bytes: a power of two from 64 KiB to 1 TiB;
 * 512 MiB.
 */
#define DRM_FENCEPOST_SVM_TUNE_NOTIFIER          0
/* Of VMs: sizes of ranges: bit n for 1 << n bytes, of 4 KiB (always), 64 KiB and 2 MiB; all. */
#define DRM_FENCEPOST_SVM_TUNE_CHUNKS            1
/*
 * Of VMs: a range of up to this many bytes is made only where the CPU has all pages: 0 to 2
 * MiB; 64 KiB.
 */
#define DRM_FENCEPOST_SVM_TUNE_CHECK_PAGES       2
/* Of VMs: nanoseconds of DRM_FENCEPOST_SVM_ATTR_TIMESLICE where it is not set; 0. */
#define DRM_FENCEPOST_SVM_TUNE_TIMESLICE         3
/* Of the device: entries of the replayable fault buffer: 1 to 1024; 256. */
#define DRM_FENCEPOST_SVM_TUNE_FAULT_ENTRIES     4
/* Of the device: most entries that are serviced together: 1 to 256; 64. */
#define DRM_FENCEPOST_SVM_TUNE_FAULT_BATCH       5
/*
 * Of VMs: 1: the GPU may have pages of a range in device and system memory at once; 0: a
 * fault that would make it so brings all of the range to system memory, as xe does; 1.
 */
#define DRM_FENCEPOST_SVM_TUNE_MIXED             6

/* Looks at the replayable fault buffer of the device, or takes its servicing in hand. */
struct drm_fencepost_svm_faults {
	/* SVM_FAULTS_*. */
	__u32 action;
	/* Wait: for how long at most, 1 to 60,000, then ETIME; else 0 (EINVAL). */
	__u32 timeout_ms;
	/* Wait: in the number of entries to wait for, else 0 (EINVAL). Out: entries to be serviced. */
	__u64 entries;
	/* Entries that were ever put. */
	__u64 put;
	/* Entries that were ever taken. */
	__u64 get;
	/* Room for entries. */
	__u64 room;
	/* Jobs that wait for a replay. */
	__u64 parked;
	/* 1 while paused. */
	__u64 paused;
	/* Must be zero. */
	__u64 reserved;
};

/* Only report. */
#define DRM_FENCEPOST_SVM_FAULTS_STATE           0
/* Service no entry until it is resumed, or this open file closes. */
#define DRM_FENCEPOST_SVM_FAULTS_PAUSE           1
/* Go on. */
#define DRM_FENCEPOST_SVM_FAULTS_RESUME          2
/* Drop the entries and replay: accesses that still miss put theirs again. */
#define DRM_FENCEPOST_SVM_FAULTS_FLUSH           3
/* Wait until there are as many entries to be serviced. */
#define DRM_FENCEPOST_SVM_FAULTS_WAIT            4

/* ---- counters, in the order of DRM_FENCEPOST_QUERY_COUNTERS ---- */

#define DRM_FENCEPOST_COUNTER_IOCTLS             0
#define DRM_FENCEPOST_COUNTER_BINDS_SYNC         1
#define DRM_FENCEPOST_COUNTER_BINDS_ASYNC        2
#define DRM_FENCEPOST_COUNTER_BINDS_FAILED       3
#define DRM_FENCEPOST_COUNTER_BINDS_UNWOUND      4
#define DRM_FENCEPOST_COUNTER_OPS_MAP            5
#define DRM_FENCEPOST_COUNTER_OPS_UNMAP          6
#define DRM_FENCEPOST_COUNTER_OPS_REMAP          7
#define DRM_FENCEPOST_COUNTER_OPS_PREFETCH       8
#define DRM_FENCEPOST_COUNTER_OPS_MADVISE        9
#define DRM_FENCEPOST_COUNTER_OPS_KEEP           10
#define DRM_FENCEPOST_COUNTER_SPLITS             11
#define DRM_FENCEPOST_COUNTER_PT_WRITES          12
#define DRM_FENCEPOST_COUNTER_PT_CLEARS          13
#define DRM_FENCEPOST_COUNTER_PT_PAGES_2M        14
#define DRM_FENCEPOST_COUNTER_PT_PAGES_64K       15
#define DRM_FENCEPOST_COUNTER_PT_PAGES_4K        16
#define DRM_FENCEPOST_COUNTER_TLB_HITS           17
#define DRM_FENCEPOST_COUNTER_TLB_MISSES         18
#define DRM_FENCEPOST_COUNTER_TLB_INVALIDATIONS  19
#define DRM_FENCEPOST_COUNTER_FAULTS_DEVICE      20
#define DRM_FENCEPOST_COUNTER_FAULTS_PERMISSION  21
#define DRM_FENCEPOST_COUNTER_SPARSE_READS       22
#define DRM_FENCEPOST_COUNTER_SPARSE_WRITES      23
#define DRM_FENCEPOST_COUNTER_BUS_ERRORS         24
#define DRM_FENCEPOST_COUNTER_EVICTIONS          25
#define DRM_FENCEPOST_COUNTER_EVICTED_BYTES      26
#define DRM_FENCEPOST_COUNTER_RESTORES           27
#define DRM_FENCEPOST_COUNTER_MOVES_TO_VRAM      28
#define DRM_FENCEPOST_COUNTER_MOVES_TO_SYSTEM    29
#define DRM_FENCEPOST_COUNTER_LOCK_BACKOFFS      30
#define DRM_FENCEPOST_COUNTER_JOBS_SUBMITTED     31
#define DRM_FENCEPOST_COUNTER_JOBS_COMPLETED     32
#define DRM_FENCEPOST_COUNTER_JOBS_FAILED        33
#define DRM_FENCEPOST_COUNTER_JOBS_TIMEOUT       34
#define DRM_FENCEPOST_COUNTER_JOBS_CANCELLED     35
#define DRM_FENCEPOST_COUNTER_RESETS             36
#define DRM_FENCEPOST_COUNTER_COMMANDS           37
#define DRM_FENCEPOST_COUNTER_FENCES_CREATED     38
#define DRM_FENCEPOST_COUNTER_FENCES_SIGNALLED   39
#define DRM_FENCEPOST_COUNTER_FENCES_WAITED      40
#define DRM_FENCEPOST_COUNTER_USER_FENCES_SIGNALLED 41
#define DRM_FENCEPOST_COUNTER_INJECTED           42
#define DRM_FENCEPOST_COUNTER_DELAYS_HIT         43
#define DRM_FENCEPOST_COUNTER_PRIME_EXPORTS      44
#define DRM_FENCEPOST_COUNTER_PRIME_IMPORTS      45
#define DRM_FENCEPOST_COUNTER_LEAKS              46
#define DRM_FENCEPOST_COUNTER_LIVE_FILES         47
#define DRM_FENCEPOST_COUNTER_LIVE_VMS           48
#define DRM_FENCEPOST_COUNTER_LIVE_VAS           49
#define DRM_FENCEPOST_COUNTER_LIVE_BOS           50
#define DRM_FENCEPOST_COUNTER_LIVE_QUEUES        51
#define DRM_FENCEPOST_COUNTER_LIVE_SYNCOBJS      52
#define DRM_FENCEPOST_COUNTER_LIVE_JOBS          53
#define DRM_FENCEPOST_COUNTER_LIVE_VRAM_BYTES    54
#define DRM_FENCEPOST_COUNTER_LIVE_SYSTEM_BYTES  55
#define DRM_FENCEPOST_COUNTER_LIVE_PT_NODES      56
#define DRM_FENCEPOST_COUNTER_SVM_FAULTS         57
#define DRM_FENCEPOST_COUNTER_SVM_FAULTS_READ    58
#define DRM_FENCEPOST_COUNTER_SVM_FAULTS_WRITE   59
#define DRM_FENCEPOST_COUNTER_SVM_FAULTS_ATOMIC  60
#define DRM_FENCEPOST_COUNTER_SVM_FAULTS_COALESCED 61
#define DRM_FENCEPOST_COUNTER_SVM_BATCHES        62
#define DRM_FENCEPOST_COUNTER_SVM_REPLAYS        63
#define DRM_FENCEPOST_COUNTER_SVM_CANCELS        64
#define DRM_FENCEPOST_COUNTER_SVM_BUFFER_FULL    65
#define DRM_FENCEPOST_COUNTER_SVM_RETRIES        66
#define DRM_FENCEPOST_COUNTER_SVM_INVALIDATIONS  67
#define DRM_FENCEPOST_COUNTER_SVM_RANGES         68
#define DRM_FENCEPOST_COUNTER_SVM_RANGES_2M      69
#define DRM_FENCEPOST_COUNTER_SVM_RANGES_64K     70
#define DRM_FENCEPOST_COUNTER_SVM_RANGES_4K      71
#define DRM_FENCEPOST_COUNTER_SVM_RANGE_SPLITS   72
#define DRM_FENCEPOST_COUNTER_SVM_COLLECTED      73
#define DRM_FENCEPOST_COUNTER_SVM_PREFETCHED     74
#define DRM_FENCEPOST_COUNTER_SVM_MIGRATED_TO_DEVICE 75
#define DRM_FENCEPOST_COUNTER_SVM_MIGRATED_TO_SYSTEM 76
#define DRM_FENCEPOST_COUNTER_SVM_CPU_FAULTS     77
#define DRM_FENCEPOST_COUNTER_SVM_TIMESLICES     78
#define DRM_FENCEPOST_COUNTER_SVM_EVICTIONS      79
#define DRM_FENCEPOST_COUNTER_SVM_EXCLUSIVE      80
#define DRM_FENCEPOST_COUNTER_SVM_REVOKES        81
#define DRM_FENCEPOST_COUNTER_LIVE_SVM_RANGES    82
#define DRM_FENCEPOST_COUNTER_LIVE_NOTIFIERS     83
#define DRM_FENCEPOST_COUNTER_LIVE_SVM_PAGES     84
#define DRM_FENCEPOST_COUNTER_LIVE_DMA_PAGES     85
#define DRM_FENCEPOST_COUNTER_LIVE_PARKED        86
#define DRM_FENCEPOST_COUNTER_SVM_MIXED          87
#define DRM_FENCEPOST_COUNTER_SVM_FILLS          88
#define DRM_FENCEPOST_COUNTER_SVM_MIGRATED_ACROSS 89
#define DRM_FENCEPOST_COUNTERS                   90

/* ---- GPU commands ---- */

/* Nothing. Words: 1. */
#define FENCEPOST_CMD_NOP                        0
/* End of the batch; running off its end is the same. Words: 1. */
#define FENCEPOST_CMD_END                        1
/* addr, value: store the value. Words: 3. */
#define FENCEPOST_CMD_STORE                      2
/* addr: load into register imm. Words: 2. */
#define FENCEPOST_CMD_LOAD                       3
/* addr: store register imm. Words: 2. */
#define FENCEPOST_CMD_STORE_REG                  4
/* src, dst, bytes: copy, any alignment, ascending; at most 2 GiB. Words: 4. */
#define FENCEPOST_CMD_COPY                       5
/* dst, bytes, value: fill with the value's 4 or 8 bytes; bytes a multiple of that. Words: 4. */
#define FENCEPOST_CMD_FILL                       6
/*
 * addr, operand, compare: atomic operation imm bits 8-15 (ATOMIC_*); the old value to
 * register imm & 15 with RESULT. Words: 4.
 */
#define FENCEPOST_CMD_ATOMIC                     7
/* All earlier accesses of the job are visible before any later one. Words: 1. */
#define FENCEPOST_CMD_FENCE                      8
/* addr, value, mask: wait until the word at addr and'ed with the mask compares. Words: 4. */
#define FENCEPOST_CMD_SEMAPHORE_WAIT             9
/* addr, value: store with release ordering. Words: 3. */
#define FENCEPOST_CMD_SEMAPHORE_RELEASE          10
/* addr: store the device's time (8 bytes, nanoseconds). Words: 2. */
#define FENCEPOST_CMD_TIMESTAMP                  11
/*
 * Repeat the commands up to the matching LOOP_END imm times (1 to 1 << 20); nested 4 deep.
 * Words: 1.
 */
#define FENCEPOST_CMD_LOOP                       12
/* End of the body of the innermost loop. Words: 1. */
#define FENCEPOST_CMD_LOOP_END                   13
/* value: add to register imm. Words: 2. */
#define FENCEPOST_CMD_ADD_REG                    14
/* Accesses are 8 bytes wide, not 4. */
#define FENCEPOST_CMD_WIDE                       1
/* Atomics: ordered against the CPU and other devices, not only within the device. */
#define FENCEPOST_CMD_SYSTEM_SCOPE               2
/* The old or loaded value goes to register imm & 15 (bits 32-35). */
#define FENCEPOST_CMD_RESULT                     4
/* Semaphore wait: succeed when (value & mask) >= operand rather than ==. */
#define FENCEPOST_CMD_GREATER_EQUAL              8
/* Atomic add. */
#define FENCEPOST_CMD_ATOMIC_ADD                 0
/* Atomic exchange. */
#define FENCEPOST_CMD_ATOMIC_EXCHANGE            1
/* Atomic compare-exchange: store operand if the old value equals compare. */
#define FENCEPOST_CMD_ATOMIC_COMPARE_EXCHANGE    2
/* Atomic and. */
#define FENCEPOST_CMD_ATOMIC_AND                 3
/* Atomic or. */
#define FENCEPOST_CMD_ATOMIC_OR                  4
/* Atomic exclusive or. */
#define FENCEPOST_CMD_ATOMIC_XOR                 5
/* Atomic unsigned minimum. */
#define FENCEPOST_CMD_ATOMIC_MIN                 6
/* Atomic unsigned maximum. */
#define FENCEPOST_CMD_ATOMIC_MAX                 7
/* Number of atomic operations. */
#define FENCEPOST_CMD_ATOMICS                    8

#if defined(__cplusplus)
}
#endif

#endif /* _FENCEPOST_DRM_H_ */
