// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The C side of mirrored address spaces: mappings, interval notifiers, hmm_range_fault(), access to
 * their pages, device-exclusive access. Moving pages is shim_devmem.c's matter.
 */
#include <linux/hmm.h>
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/xarray.h>
#include "shim_world.h"

/* ---- address spaces -------------------------------------------------------------------------- */

/* The mm_struct alone is held: a process that exits frees its memory. */
struct mm_struct *fp_mm_of_task(struct fp_world *w, u64 task)
{
	struct mm_struct *mm;

	xa_lock(&w->mms);
	mm = xa_load(&w->mms, task);
	if (mm)
		mmgrab(mm);
	xa_unlock(&w->mms);
	return mm;
}

void fp_mm_grab(struct mm_struct *mm)
{
	mmgrab(mm);
}

void fp_mm_drop(struct mm_struct *mm)
{
	mmdrop(mm);
}

/* The mapping that has an address or, with `next`, the first one that ends above it. */
int fp_vma(struct mm_struct *mm, u64 addr, bool next, struct fp_vma *out)
{
	struct vm_area_struct *vma;
	int ret = -ENOENT;

	if (!mmget_not_zero(mm))
		return -EFAULT;
	mmap_read_lock(mm);
	vma = find_vma(mm, addr);
	if (vma && (next || vma->vm_start <= addr)) {
		ret = 0;
		out->start = vma->vm_start;
		out->end = vma->vm_end;
		out->flags = (vma->vm_flags & VM_READ ? FP_VMA_READ : 0) |
			     (vma->vm_flags & VM_WRITE ? FP_VMA_WRITE : 0) |
			     (vma_is_anonymous(vma) ? FP_VMA_ANONYMOUS : 0) |
			     (is_vm_hugetlb_page(vma) ? FP_VMA_HUGETLB : 0) |
			     (vma->vm_flags & (VM_IO | VM_PFNMAP | VM_MIXEDMAP) ? FP_VMA_DEVICE : 0);
	}
	mmap_read_unlock(mm);
	/* the last user's way out unmaps everything: not below our caller's locks */
	mmput_async(mm);
	return ret;
}

/* ---- notifiers ------------------------------------------------------------------------------- */

struct fp_notifier {
	struct mmu_interval_notifier mni;
	struct fp_world *world;
	u64 cookie;
};

static bool fp_notifier_invalidate(struct mmu_interval_notifier *mni,
				   const struct mmu_notifier_range *range, unsigned long seq)
{
	struct fp_notifier *n = container_of(mni, struct fp_notifier, mni);
	struct fp_invalidation inv = {
		/* the end of an address space comes as the whole of all addresses */
		.start = max(range->start, mni->interval_tree.start),
		.end = min(range->end - 1, mni->interval_tree.last) + 1,
		.event = range->event,
		.owner = (unsigned long)range->owner,
		.blockable = mmu_notifier_range_blockable(range),
		.mni = mni,
		.seq = seq,
	};

	return fp_rust_invalidate(n->world->driver, n->cookie, &inv);
}

/* Called back by fp_rust_invalidate(), under the driver's lock. */
void fp_invalidation_set_seq(const struct fp_invalidation *inv)
{
	mmu_interval_set_seq(inv->mni, inv->seq);
}

static const struct mmu_interval_notifier_ops fp_notifier_ops = {
	.invalidate = fp_notifier_invalidate,
};

int fp_notifier_insert(struct fp_world *w, struct mm_struct *mm, u64 start, u64 end, u64 cookie,
		       struct fp_notifier **out)
{
	struct fp_notifier *n = kzalloc(sizeof(*n), GFP_KERNEL_ACCOUNT);
	int ret;

	if (!n)
		return -ENOMEM;
	n->world = w;
	n->cookie = cookie;
	ret = -EFAULT;
	if (mmget_not_zero(mm)) {
		ret = mmu_interval_notifier_insert(&n->mni, mm, start, end - start,
						   &fp_notifier_ops);
		mmput_async(mm);
	}
	if (ret) {
		kfree(n);
		return ret;
	}
	atomic_inc(&w->notifiers);
	*out = n;
	return 0;
}

void fp_notifier_remove(struct fp_notifier *n)
{
	struct fp_world *w = n->world;

	mmu_interval_notifier_remove(&n->mni);
	kfree(n);
	if (atomic_dec_and_test(&w->notifiers))
		fp_devmem_idle(w);
}

u64 fp_read_begin(struct fp_notifier *n)
{
	return mmu_interval_read_begin(&n->mni);
}

bool fp_read_retry(struct fp_notifier *n, u64 seq)
{
	return mmu_interval_read_retry(&n->mni, seq);
}

/* ---- pages ----------------------------------------------------------------------------------- */

/*
 * How often each page is mapped for the device: what is not mapped is not there, so that a stale
 * translation is a bus error. In pieces that are made before they are needed, since mapping is done
 * under a lock that reclaim takes; they stay as long as the world.
 */
#define FP_MAPS_SHIFT	9
#define FP_MAPS		(1u << FP_MAPS_SHIFT)

struct fp_maps {
	unsigned long index;
	atomic_t count[FP_MAPS];
};

void fp_mirror_init(struct fp_world *w)
{
	xa_init(&w->mirrored);
}

void fp_mirror_fini(struct fp_world *w)
{
	struct fp_maps *maps;
	unsigned long index;
	u32 i;

	xa_for_each(&w->mirrored, index, maps) {
		for (i = 0; i < FP_MAPS; i++)
			WARN_ON_ONCE(atomic_read(&maps->count[i]));
		kfree(maps);
	}
	xa_destroy(&w->mirrored);
}

/* Neighbours are often asked for together, so the piece that was found last is tried first. */
static struct fp_maps *fp_maps_find(struct fp_world *w, unsigned long index)
{
	struct fp_maps *maps = READ_ONCE(w->recent);

	if (maps && maps->index == index)
		return maps;
	maps = xa_load(&w->mirrored, index);
	if (maps)
		WRITE_ONCE(w->recent, maps);
	return maps;
}

static int fp_maps_prepare(struct fp_world *w, unsigned long pfn)
{
	unsigned long index = pfn >> FP_MAPS_SHIFT;
	struct fp_maps *maps, *other;

	if (fp_maps_find(w, index))
		return 0;
	if (FP_MIRROR_DMA + PFN_PHYS(pfn) >= FP_LAST_DMA)
		return -ENOMEM;
	maps = kzalloc(sizeof(*maps), GFP_KERNEL);
	if (!maps)
		return -ENOMEM;
	maps->index = index;
	other = xa_cmpxchg(&w->mirrored, index, NULL, maps, GFP_KERNEL);
	if (other)
		kfree(maps);
	return xa_err(other);
}

static atomic_t *fp_maps_of(struct fp_world *w, unsigned long pfn)
{
	struct fp_maps *maps = fp_maps_find(w, pfn >> FP_MAPS_SHIFT);

	return maps ? &maps->count[pfn & (FP_MAPS - 1)] : NULL;
}

/* Kernel address of the page at a system address of a mirrored address space, or NULL. */
void *fp_mirrored_page(struct fp_world *w, u64 addr)
{
	unsigned long pfn = PHYS_PFN(addr - FP_MIRROR_DMA);
	atomic_t *count = fp_maps_of(w, pfn);

	return count && atomic_read(count) ? page_address(pfn_to_page(pfn)) : NULL;
}

/*
 * hmm's answer in the words of the host trait. Of a huge entry of device memory Linux 7.2 counts the pages
 * from the folio's first one also where the range begins in its midst (hmm_vma_handle_absent_pmd()), so that
 * the device would get to pages that are elsewhere. Large folios are aligned in frames as in addresses.
 */
static int fp_page_out(struct fp_world *w, const struct fp_want *want, u64 addr,
		       unsigned long hmm, u64 *out)
{
	u64 flags = hmm & (HMM_PFN_VALID | HMM_PFN_WRITE | HMM_PFN_ERROR);
	struct fp_world *home;
	struct page *page;
	u64 number;

	*out = flags;
	if (!(hmm & HMM_PFN_VALID))
		return 0;
	flags |= (u64)hmm_pfn_to_map_order(hmm) << FP_PFN_ORDER_SHIFT;
	page = hmm_pfn_to_page(hmm);
	number = page_to_pfn(page);
	if (is_device_private_page(page)) {
		home = fp_devmem_frame(page, &number);
		if (WARN_ON_ONCE(!home))
			return -EFAULT;
		flags |= FP_PFN_DEVICE | (u64)home->number << FP_PFN_DEVICE_SHIFT;
		if (hmm_pfn_to_map_order(hmm) == HPAGE_PMD_ORDER && !want->trusting)
			number = ALIGN_DOWN(number, HPAGE_PMD_NR) +
				 ((addr & ~HPAGE_PMD_MASK) >> PAGE_SHIFT);
	} else {
		if (is_zero_pfn(number))
			flags |= FP_PFN_ZERO;
		if (fp_maps_prepare(w, number))
			return -ENOMEM;
	}
	*out = flags | number;
	return 0;
}

/* Pages of 2 MiB: most that are asked for one by one. */
#define FP_ASKED_MOST	512

/*
 * hmm_range_fault() reports the owner's device pages as they are, also when they are wanted for
 * writing and the CPU may not write them: no fault is taken. Takes it where the mapping allows, which
 * brings the page back, as a copy if it is shared. 0: all can be written; -EBUSY: read them again.
 * Without a set all pages are wanted.
 */
static int fp_fault_readonly(struct mm_struct *mm, u64 start, u64 count, const u64 *pages,
			     const unsigned long *wanted)
{
	u64 i, good = HMM_PFN_VALID | HMM_PFN_WRITE, addr;
	struct vm_area_struct *vma;
	int ret;

	for (i = 0; i < count; i++) {
		if ((pages[i] & good) != HMM_PFN_VALID || (wanted && !test_bit(i, wanted)))
			continue;
		addr = start + (i << PAGE_SHIFT);
		vma = vma_lookup(mm, addr);
		if (!vma)
			return -EBUSY;
		if (!(vma->vm_flags & VM_WRITE))
			return -EPERM;
		ret = fixup_user_fault(mm, addr, FAULT_FLAG_WRITE | FAULT_FLAG_REMOTE, NULL);
		return ret ? ret : -EBUSY;
	}
	return 0;
}

/*
 * Pages [start, end) of one notifier; `pages` in the words of the host trait, of which VALID, WRITE
 * and ERROR are hmm's.
 */
int fp_range_fault(struct fp_world *w, struct mm_struct *mm, struct fp_notifier *n, u64 seq,
		   u64 start, u64 end, const struct fp_want *want, u64 *pages)
{
	u64 asked = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE, i, count = (end - start) >> PAGE_SHIFT;
	bool one_by_one = want->mask & asked, all = want->flags & HMM_PFN_REQ_WRITE;
	DECLARE_BITMAP(wanted, FP_ASKED_MOST) = {};
	struct hmm_range range = {
		.notifier = &n->mni,
		.notifier_seq = seq,
		.start = start,
		.end = end,
		.hmm_pfns = (unsigned long *)pages,
		.default_flags = want->flags & asked,
		.pfn_flags_mask = want->mask & asked,
		.dev_private_owner = (void *)(unsigned long)want->owner,
	};
	int ret;

	BUILD_BUG_ON(sizeof(*range.hmm_pfns) != sizeof(*pages));
	if (one_by_one && count > FP_ASKED_MOST)
		return -EINVAL;
	for (i = 0; i < count; i++) {
		pages[i] &= asked;
		if (one_by_one && (pages[i] & want->mask & HMM_PFN_REQ_WRITE))
			__set_bit(i, wanted);
	}
	if (!mmget_not_zero(mm))
		return -EFAULT;
	mmap_read_lock(mm);
	ret = hmm_range_fault(&range);
	if (!ret && (all || one_by_one))
		ret = fp_fault_readonly(mm, start, count, pages, all ? NULL : wanted);
	mmap_read_unlock(mm);
	mmput_async(mm);
	for (i = 0; i < count && !ret; i++)
		ret = fp_page_out(w, want, start + (i << PAGE_SHIFT), pages[i], &pages[i]);
	return ret;
}

/*
 * Called under the lock under which the sequence was found to be good: the CPU maps the pages until
 * it is dropped. What the device may write counts as written, since it leaves no trace in the CPU's
 * page tables (MADV_FREE, for one, leaves entries that are clean and can be written).
 */
int fp_mirror_map(struct fp_world *w, u64 pfn, u32 order, bool write, u64 *addr)
{
	/* aligned pages have their counts in one piece */
	u64 i, count = 1ull << order;
	atomic_t *maps;

	if (WARN_ON_ONCE(!IS_ALIGNED(pfn, count) || count > FP_MAPS))
		return -EINVAL;
	maps = fp_maps_of(w, pfn);
	if (WARN_ON_ONCE(!maps))
		return -ENOMEM;
	for (i = 0; i < count; i++)
		atomic_inc(&maps[i]);
	if (write)
		folio_mark_dirty(page_folio(pfn_to_page(pfn)));
	*addr = FP_MIRROR_DMA + PFN_PHYS(pfn);
	return 0;
}

void fp_mirror_unmap(struct fp_world *w, u64 addr, u32 order)
{
	atomic_t *maps = fp_maps_of(w, PHYS_PFN(addr - FP_MIRROR_DMA));
	u64 i;

	if (WARN_ON_ONCE(!maps))
		return;
	for (i = 0; i < 1ull << order; i++)
		if (!WARN_ON_ONCE(atomic_read(&maps[i]) <= 0))
			atomic_dec(&maps[i]);
}

/* ---- exclusive access ------------------------------------------------------------------------ */

/* Under the mmap lock. The folio is locked and held until fp_exclusive_end(). */
static int fp_exclusive_page(struct fp_world *w, struct mm_struct *mm, u64 addr, u64 owner,
			     u64 *page, struct folio **out)
{
	struct page *exclusive;
	int ret;

	exclusive = make_device_exclusive(mm, addr, (void *)(unsigned long)owner, out);
	if (IS_ERR(exclusive))
		return PTR_ERR(exclusive);
	ret = fp_maps_prepare(w, page_to_pfn(exclusive));
	if (ret) {
		fp_exclusive_end(*out);
		return ret;
	}
	*page = HMM_PFN_VALID | HMM_PFN_WRITE | page_to_pfn(exclusive);
	return 0;
}

int fp_make_exclusive(struct fp_world *w, struct mm_struct *mm, u64 addr, u64 owner, u64 *page,
		      struct folio **out)
{
	int ret;

	if (!mmget_not_zero(mm))
		return -EFAULT;
	mmap_read_lock(mm);
	ret = fp_exclusive_page(w, mm, addr, owner, page, out);
	mmap_read_unlock(mm);
	mmput_async(mm);
	return ret;
}

/* Calls `each` for the pages of [start, end), while each is locked. */
int fp_make_range_exclusive(struct fp_world *w, struct mm_struct *mm, u64 start, u64 end, u64 owner,
			    int (*each)(void *ctx, u64 addr, u64 page), void *ctx)
{
	struct folio *folio;
	u64 addr, page;
	int ret = 0;

	if (!mmget_not_zero(mm))
		return -EFAULT;
	mmap_read_lock(mm);
	for (addr = start; addr < end && !ret; addr += PAGE_SIZE) {
		ret = fp_exclusive_page(w, mm, addr, owner, &page, &folio);
		if (ret)
			break;
		ret = each(ctx, addr, page);
		/* from here on the CPU's accesses, which wait, take it away again */
		fp_exclusive_end(folio);
	}
	mmap_read_unlock(mm);
	mmput_async(mm);
	return ret;
}

void fp_exclusive_end(struct folio *folio)
{
	folio_unlock(folio);
	folio_put(folio);
}
