// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The C side of device memory that mirrored address spaces use: one ZONE_DEVICE page a frame, and the
 * moves of pages there and back.
 *
 * A frame is backed by an ordinary page from its first use on, as a device's memory is there all the
 * time; what backs frames is given back once nobody mirrors and every frame is free. What a frame
 * holds is reached as that of a buffer object is: by the world's table of frames.
 */
#include <linux/bitmap.h>
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include "shim_world.h"

struct fp_devmem {
	struct dev_pagemap pagemap;
	struct fp_world *world;
	struct resource *region;
	struct page **backing;		/* of each frame, NULL before its first use */
	struct mutex backing_lock;	/* protects the above */
	atomic_t live;			/* frames that are in use */
	unsigned long *freed;		/* frames that came free, for fp_frames_freed() */
	atomic_t nfreed;
	struct work_struct idle;
};

static const struct dev_pagemap_ops fp_devmem_ops;

static struct fp_devmem *fp_devmem_of(struct page *page)
{
	return container_of(page_pgmap(page), struct fp_devmem, pagemap);
}

static u64 fp_frame_of(struct fp_devmem *d, struct page *page)
{
	return page_to_pfn(page) - PHYS_PFN(d->pagemap.range.start);
}

static struct page *fp_frame_page(struct fp_devmem *d, u64 frame)
{
	return pfn_to_page(PHYS_PFN(d->pagemap.range.start) + frame);
}

/* Which frame a page is, and whose; NULL: no page of this driver's. */
struct fp_world *fp_devmem_frame(struct page *page, u64 *frame)
{
	struct fp_devmem *d;

	if (page_pgmap(page)->ops != &fp_devmem_ops)
		return NULL;
	d = fp_devmem_of(page);
	*frame = fp_frame_of(d, page);
	return d->world;
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* Backs frames; in one piece when it is easy, which is quicker. */
static int fp_frames_back(struct fp_devmem *d, u64 frame, u64 count)
{
	struct page *page = NULL;
	int ret = 0;
	u64 i;

	mutex_lock(&d->backing_lock);
	for (i = 0; i < count && !d->backing[frame + i]; i++)
		;
	if (count > 1 && i == count && is_power_of_2(count))
		page = alloc_pages(GFP_HIGHUSER | __GFP_NOWARN | __GFP_NORETRY, ilog2(count));
	if (page)
		split_page(page, ilog2(count));
	for (i = 0; i < count; i++) {
		if (d->backing[frame + i])
			continue;
		d->backing[frame + i] = page ? page + i : alloc_page(GFP_HIGHUSER);
		if (!d->backing[frame + i]) {
			ret = -ENOMEM;
			break;
		}
	}
	mutex_unlock(&d->backing_lock);
	return ret;
}

/* Frames are free: nothing is to be found there, and the driver may give them away again. */
static void fp_frames_give_back(struct fp_devmem *d, u64 frame, u64 count)
{
	u64 i;

	fp_vram_unbind(d->world, frame, count);
	for (i = 0; i < count; i++)
		set_bit(frame + i, d->freed);
	/* who finds none gives up; who finds some asks again until there are none */
	if (!atomic_fetch_add(count, &d->nfreed))
		fp_wake(d->world);
	if (!atomic_sub_return(count, &d->live))
		fp_devmem_idle(d->world);
}

bool fp_has_freed_frames(struct fp_world *w)
{
	return w->devmem && atomic_read(&w->devmem->nfreed);
}

/* The next run of frames that came free; `cursor` begins with 0. */
bool fp_frames_freed(struct fp_world *w, u64 *cursor, u64 *first, u64 *count)
{
	struct fp_devmem *d = w->devmem;
	u64 frame = *cursor, n;

	if (!d || !atomic_read(&d->nfreed))
		return false;
	for (;;) {
		frame = find_next_bit(d->freed, w->nframes, frame);
		if (frame >= w->nframes)
			return false;
		for (n = 0; frame + n < w->nframes && test_and_clear_bit(frame + n, d->freed); n++)
			;
		if (n)
			break;
	}
	atomic_sub(n, &d->nfreed);
	*first = frame;
	*count = n;
	*cursor = frame + n;
	return true;
}

/* A folio of frames that were free, locked, with one reference. */
static struct folio *fp_devmem_folio(struct fp_devmem *d, u64 frame, u32 order)
{
	struct folio *folio = page_folio(fp_frame_page(d, frame));
	u64 i;

	zone_device_folio_init(folio, &d->pagemap, order);
	for (i = 0; i < 1ull << order; i++)
		smp_store_release(&d->world->frames[frame + i],
				  page_address(d->backing[frame + i]));
	return folio;
}

/*
 * The last reference has gone; any context. Large folios are undone here: their frames may come back
 * in other sizes, while migrate_device_range() believes what stands in the pages.
 */
static void fp_devmem_folio_free(struct folio *folio)
{
	struct page *page = folio_page(folio, 0);
	struct fp_devmem *d = fp_devmem_of(page);
	u64 frame = fp_frame_of(d, page), count = folio_nr_pages(folio), i;

	for (i = 0; i < count && count > 1; i++) {
		page[i].flags.f &= ~0xffUL;	/* order and head, as zone_device_page_init() */
		((struct folio *)(page + i))->pgmap = &d->pagemap;	/* and no tail */
	}
	fp_frames_give_back(d, frame, count);
}

/* What backs the tail is found by its frame already. */
static void fp_devmem_folio_split(struct folio *head, struct folio *tail)
{
	if (!tail)
		return;
	tail->pgmap = head->pgmap;
	tail->page.mapping = head->page.mapping;
}

static vm_fault_t fp_devmem_fault(struct vm_fault *vmf)
{
	struct fp_devmem *d = fp_devmem_of(vmf->page);
	u64 addr = vmf->address & PAGE_MASK, frame = fp_frame_of(d, vmf->page);

	/* a fault on a huge entry has the folio's first page */
	if (!vmf->pte)
		frame += (addr & ~HPAGE_PMD_MASK) >> PAGE_SHIFT;
	return fp_rust_cpu_fault(d->world->driver, vmf, addr, frame) ? VM_FAULT_SIGBUS : 0;
}

static const struct dev_pagemap_ops fp_devmem_ops = {
	.folio_free = fp_devmem_folio_free,
	.folio_split = fp_devmem_folio_split,
	.migrate_to_ram = fp_devmem_fault,
};

/* ---- moving pages ---------------------------------------------------------------------------- */

struct fp_migration {
	struct migrate_vma args;	/* without a VMA: migrate_device_*() */
	struct fp_world *world;
	struct mm_struct *mm;	/* whose lock is held; NULL for those of others */
	u64 start;
	u64 first;	/* number of the first page, of which large ones are aligned */
	u64 count;
	bool committed;
	u8 *unit;		/* order + 1 of what has its target here, else 0 */
	bool *copied;
	unsigned long pfns[];	/* sources, targets */
};

static struct fp_migration *fp_migration_alloc(struct fp_world *w, u64 start, u64 count)
{
	struct fp_migration *m;

	m = kvzalloc(struct_size(m, pfns, 2 * count) + 2 * count, GFP_KERNEL);
	if (!m)
		return NULL;
	m->world = w;
	m->start = start;
	m->first = start >> PAGE_SHIFT;
	m->count = count;
	m->args.src = m->pfns;
	m->args.dst = m->pfns + count;
	m->unit = (u8 *)(m->pfns + 2 * count);
	m->copied = (bool *)(m->unit + count);
	return m;
}

static void fp_migration_free(struct fp_migration *m)
{
	if (m->mm) {
		mmap_read_unlock(m->mm);
		mmput_async(m->mm);
	}
	kvfree(m);
}

/* Pages [start, end) of one mapping. */
int fp_migrate_setup(struct fp_world *w, struct mm_struct *mm, u64 start, u64 end, u64 owner,
		     u32 select, struct fp_migration **out)
{
	struct fp_migration *m = fp_migration_alloc(w, start, (end - start) >> PAGE_SHIFT);
	int ret = -EFAULT;

	if (!m)
		return -ENOMEM;
	if (!mmget_not_zero(mm))
		goto free;
	m->mm = mm;
	mmap_read_lock(mm);
	m->args.vma = vma_lookup(mm, start);
	m->args.start = start;
	m->args.end = end;
	m->args.pgmap_owner = (void *)(unsigned long)owner;
	m->args.flags = MIGRATE_VMA_SELECT_COMPOUND |
			(select & FP_SELECT_SYSTEM ? MIGRATE_VMA_SELECT_SYSTEM : 0) |
			(select & FP_SELECT_DEVICE ? MIGRATE_VMA_SELECT_DEVICE_PRIVATE : 0);
	ret = m->args.vma ? migrate_vma_setup(&m->args) : -ENOENT;
	if (ret)
		goto free;
	*out = m;
	return 0;
free:
	fp_migration_free(m);
	return ret;
}

/* Pages [start, end), clipped to the mapping of a CPU fault, which holds its locks. */
int fp_migrate_setup_fault(struct fp_world *w, struct vm_fault *vmf, u64 start, u64 end,
			   u64 owner, struct fp_migration **out)
{
	struct vm_area_struct *vma = vmf->vma;
	struct fp_migration *m;
	int ret;

	start = max(start, vma->vm_start);
	end = min(end, vma->vm_end);
	m = fp_migration_alloc(w, start, (end - start) >> PAGE_SHIFT);
	if (!m)
		return -ENOMEM;
	m->args.vma = vma;
	m->args.start = start;
	m->args.end = end;
	m->args.pgmap_owner = (void *)(unsigned long)owner;
	m->args.flags = MIGRATE_VMA_SELECT_COMPOUND | MIGRATE_VMA_SELECT_DEVICE_PRIVATE;
	m->args.fault_page = vmf->page;
	ret = migrate_vma_setup(&m->args);
	if (ret) {
		fp_migration_free(m);
		return ret;
	}
	*out = m;
	return 0;
}

/* Frames, wherever they are mapped. */
int fp_migrate_setup_frames(struct fp_world *w, u64 frame, u64 count, struct fp_migration **out)
{
	struct fp_migration *m;
	struct page *page;
	u64 skip = 0;

	if (WARN_ON_ONCE(!w->devmem || frame + count > w->nframes))
		return -EINVAL;
	m = fp_migration_alloc(w, 0, count);
	if (!m)
		return -ENOMEM;
	page = fp_frame_page(w->devmem, frame);
	m->first = page_to_pfn(page);
	/* of a folio that begins before, nothing moves; the kernel would skip its size from here */
	while (skip < count && PageTail(page + skip))
		skip++;
	if (skip < count)
		migrate_device_range(m->args.src + skip, m->first + skip, count - skip);
	*out = m;
	return 0;
}

void fp_migrate_span(struct fp_migration *m, u64 *start, u64 *count)
{
	*start = m->start;
	*count = m->count;
}

/*
 * Where what page i belongs to begins: large folios and large holes, which are all of one order, stand
 * at their first page, the others of theirs are empty words.
 */
static u64 fp_unit_head(struct fp_migration *m, u64 i)
{
	u64 back = (m->first + i) % HPAGE_PMD_NR;

	if (!m->args.src[i] && back <= i && (m->args.src[i - back] & MIGRATE_PFN_COMPOUND))
		return i - back;
	return i;
}

/* What is at page i; of a large folio the part from there on, at its first page all of it. */
void fp_migrate_source(struct fp_migration *m, u64 i, struct fp_source *out)
{
	u64 head = fp_unit_head(m, i), src = m->args.src[head];
	struct page *page = migrate_pfn_to_page(src);
	struct fp_world *home;

	*out = (struct fp_source){ .kind = FP_SOURCE_STAYS };
	if (!(src & MIGRATE_PFN_MIGRATE))
		return;
	if (!page) {
		out->kind = FP_SOURCE_EMPTY;
		return;
	}
	/* a merged page keeps its place in ksmd's trees, and ksmd reads what is there */
	if (folio_test_ksm(page_folio(page)))
		return;
	if (head == i && (src & MIGRATE_PFN_COMPOUND))
		out->order = folio_order(page_folio(page));
	page += i - head;
	out->kind = FP_SOURCE_SYSTEM;
	if (is_device_private_page(page)) {
		home = fp_devmem_frame(page, &out->frame);
		out->kind = home ? FP_SOURCE_DEVICE : FP_SOURCE_STAYS;
		out->device = home ? home->number : 0;
	}
}

static unsigned long fp_write_flag(struct fp_migration *m, u64 i)
{
	return m->args.src[fp_unit_head(m, i)] & MIGRATE_PFN_WRITE;
}

/* Whether what begins at page i moves as one, if its target is as large. */
static bool fp_is_large(struct fp_migration *m, u64 i, u32 order)
{
	u64 src = m->args.src[i];

	return order == HPAGE_PMD_ORDER && (src & MIGRATE_PFN_COMPOUND) &&
	       (src & MIGRATE_PFN_MIGRATE);
}

static bool fp_wants_target(struct fp_migration *m, u64 i)
{
	u64 head;

	if (i >= m->count || m->unit[i])
		return false;
	head = fp_unit_head(m, i);
	return m->unit[head] <= 1 && (m->args.src[head] & MIGRATE_PFN_MIGRATE);
}

/* Takes the frames over in any case. Sources that are no such folio get single pages. */
int fp_migrate_to_device(struct fp_migration *m, u64 i, u64 frame, u32 order)
{
	struct fp_devmem *d = m->world->devmem;
	u64 count = 1ull << order, j;
	struct folio *folio;
	int ret;

	if (WARN_ON_ONCE(!d || frame + count > m->world->nframes))
		return -EINVAL;
	atomic_add(count, &d->live);
	ret = fp_frames_back(d, frame, count);
	if (ret || (order && !IS_ALIGNED(frame, count))) {
		fp_frames_give_back(d, frame, count);
		return ret ? ret : -EINVAL;
	}
	if (fp_is_large(m, i, order) && fp_wants_target(m, i)) {
		folio = fp_devmem_folio(d, frame, order);
		m->args.dst[i] = migrate_pfn(folio_pfn(folio)) | MIGRATE_PFN_COMPOUND |
				 fp_write_flag(m, i);
		m->unit[i] = order + 1;
		return 0;
	}
	for (j = 0; j < count; j++) {
		if (!fp_wants_target(m, i + j)) {
			fp_frames_give_back(d, frame + j, 1);
			continue;
		}
		folio = fp_devmem_folio(d, frame + j, 0);
		m->args.dst[i + j] = migrate_pfn(folio_pfn(folio)) | fp_write_flag(m, i + j);
		m->unit[i + j] = 1;
	}
	return 0;
}

static struct folio *fp_system_folio(struct fp_migration *m, u64 i, u32 order)
{
	gfp_t gfp = GFP_HIGHUSER_MOVABLE | (order ? __GFP_NOWARN : 0);
	u64 addr = m->start + (i << PAGE_SHIFT);

	return m->args.vma ? vma_alloc_folio(gfp, order, m->args.vma, addr) :
			     folio_alloc(gfp, order);
}

static void fp_drop_target(struct fp_migration *m, u64 i)
{
	struct folio *folio;

	if (!m->unit[i])
		return;
	folio = page_folio(migrate_pfn_to_page(m->args.dst[i]));
	m->args.dst[i] = 0;
	m->unit[i] = 0;
	folio_unlock(folio);
	folio_put(folio);
}

int fp_migrate_to_system(struct fp_migration *m, u64 i, u32 order)
{
	u64 count = 1ull << order, j;
	bool large = fp_is_large(m, i, order);
	struct folio *folio;

	/* without an address space large folios cannot be taken apart */
	if (!m->args.vma && !large && (m->args.src[fp_unit_head(m, i)] & MIGRATE_PFN_COMPOUND))
		return -ENOMEM;
	for (j = 0; j < count; j += large ? count : 1) {
		if (!fp_wants_target(m, i + j))
			continue;
		folio = fp_system_folio(m, i + j, large ? order : 0);
		if (!folio)
			goto undo;
		folio_lock(folio);
		m->args.dst[i + j] = migrate_pfn(folio_pfn(folio)) | fp_write_flag(m, i + j) |
				     (large ? MIGRATE_PFN_COMPOUND : 0);
		m->unit[i + j] = large ? order + 1 : 1;
	}
	return 0;
undo:
	while (j--)
		fp_drop_target(m, i + j);
	return -ENOMEM;
}

/* Where the bytes of a page are, of whichever device. */
static void *fp_bytes(struct page *page)
{
	if (is_device_private_page(page)) {
		struct fp_devmem *d = fp_devmem_of(page);

		return page_address(d->backing[fp_frame_of(d, page)]);
	}
	return page_address(page);
}

/* Copies what has its target at page i. */
void fp_migrate_copy(struct fp_migration *m, u64 i)
{
	u64 head = fp_unit_head(m, i), count, j;
	struct page *from = migrate_pfn_to_page(m->args.src[head]), *to;

	if (!m->unit[i] || m->copied[i])
		return;
	count = 1ull << (m->unit[i] - 1);
	to = migrate_pfn_to_page(m->args.dst[i]);
	for (j = 0; j < count; j++) {
		if (from)
			copy_page(fp_bytes(to + j), fp_bytes(from + (i - head) + j));
		else
			clear_page(fp_bytes(to + j));
	}
	/* the device wrote, for all the kernel knows: what MADV_FREE gave up is wanted again */
	if (from && is_device_private_page(from) && !is_device_private_page(to))
		folio_set_dirty(page_folio(to));
	m->copied[i] = true;
}

/* Page i stays, and what moves with it. */
void fp_migrate_keep(struct fp_migration *m, u64 i)
{
	u64 head = fp_unit_head(m, i);

	fp_drop_target(m, i);
	/* of a large folio that moves as one */
	if (m->unit[head] > 1)
		fp_drop_target(m, head);
}

/*
 * A large hole whose target is not as large is filled page by page: the kernel would expect a target
 * for each of its pages.
 */
static void fp_split_holes(struct fp_migration *m)
{
	u64 hole = MIGRATE_PFN_MIGRATE | MIGRATE_PFN_COMPOUND, i, j;

	for (i = 0; i < m->count; i++) {
		if (m->args.src[i] != hole || (m->args.dst[i] & MIGRATE_PFN_COMPOUND))
			continue;
		for (j = 0; j < HPAGE_PMD_NR && i + j < m->count; j++)
			m->args.src[i + j] = m->args.dst[i + j] ? MIGRATE_PFN_MIGRATE : 0;
	}
}

void fp_migrate_commit(struct fp_migration *m)
{
	u64 i;

	for (i = 0; i < m->count; i++) {
		if (!m->copied[i])
			fp_drop_target(m, i);
	}
	if (m->args.vma) {
		fp_split_holes(m);
		migrate_vma_pages(&m->args);
	} else {
		migrate_device_pages(m->args.src, m->args.dst, m->count);
	}
	m->committed = true;
}

/* Whether page i has moved; after the commit. */
bool fp_migrate_moved(struct fp_migration *m, u64 i)
{
	u64 head = fp_unit_head(m, i);

	return m->unit[head] > (head == i ? 0 : 1) && (m->args.src[head] & MIGRATE_PFN_MIGRATE);
}

void fp_migrate_end(struct fp_migration *m)
{
	if (!m->committed)
		fp_migrate_commit(m);
	if (m->args.vma)
		migrate_vma_finalize(&m->args);
	else
		migrate_device_finalize(m->args.src, m->args.dst, m->count);
	fp_migration_free(m);
}

/* ---- the device memory of a world ------------------------------------------------------------ */

static void fp_devmem_idle_work(struct work_struct *work)
{
	struct fp_devmem *d = container_of(work, struct fp_devmem, idle);
	u64 i;

	mutex_lock(&d->backing_lock);
	if (!atomic_read(&d->live) && !atomic_read(&d->world->notifiers)) {
		/* accesses of engines under way */
		synchronize_rcu();
		for (i = 0; i < d->world->nframes; i++) {
			if (d->backing[i])
				__free_page(d->backing[i]);
			d->backing[i] = NULL;
		}
	}
	mutex_unlock(&d->backing_lock);
}

/* Somebody was the last one: what backs frames may be given back. Any context. */
void fp_devmem_idle(struct fp_world *w)
{
	struct fp_devmem *d = w->devmem;

	if (d && !atomic_read(&d->live) && !atomic_read(&w->notifiers))
		queue_work(w->reclaim, &d->idle);
}

static void fp_devmem_free(struct fp_devmem *d)
{
	if (d->region)
		release_mem_region(d->region->start, resource_size(d->region));
	bitmap_free(d->freed);
	kvfree(d->backing);
	kfree(d);
}

int fp_devmem_create(struct fp_world *w)
{
	u64 size = ALIGN(w->nframes << PAGE_SHIFT, memremap_compat_align());
	struct fp_devmem *d;
	void *mapped;

	if (!w->nframes)
		return 0;
	d = kzalloc(sizeof(*d), GFP_KERNEL);
	if (!d)
		return -ENOMEM;
	d->world = w;
	mutex_init(&d->backing_lock);
	INIT_WORK(&d->idle, fp_devmem_idle_work);
	d->backing = kvcalloc(w->nframes, sizeof(*d->backing), GFP_KERNEL);
	d->freed = bitmap_zalloc(w->nframes, GFP_KERNEL);
	if (!d->backing || !d->freed)
		goto fail;
	d->region = request_free_mem_region(&iomem_resource, size, "fencepost");
	if (IS_ERR(d->region)) {
		d->region = NULL;
		goto fail;
	}
	d->pagemap.type = MEMORY_DEVICE_PRIVATE;
	d->pagemap.range.start = d->region->start;
	d->pagemap.range.end = d->region->start + size - 1;
	d->pagemap.nr_range = 1;
	d->pagemap.ops = &fp_devmem_ops;
	d->pagemap.owner = (void *)(unsigned long)w->owner;
	mapped = memremap_pages(&d->pagemap, numa_node_id());
	if (IS_ERR(mapped))
		goto fail;
	w->devmem = d;
	return 0;
fail:
	fp_devmem_free(d);
	return -ENOMEM;
}

/* Moves what is in some frames to system memory. */
static void fp_devmem_evict(struct fp_world *w, u64 frame, u64 count)
{
	struct fp_migration *m;
	struct fp_source source;
	u64 i;

	if (fp_migrate_setup_frames(w, frame, count, &m))
		return;
	for (i = 0; i < count; i++) {
		fp_migrate_source(m, i, &source);
		if (source.kind != FP_SOURCE_DEVICE || m->unit[fp_unit_head(m, i)])
			continue;
		if (!fp_migrate_to_system(m, i, source.order))
			fp_migrate_copy(m, i);
	}
	fp_migrate_commit(m);
	fp_migrate_end(m);
}

/*
 * Nobody makes migrations any more. Pages of processes that used the device are still there; once they
 * are gone nobody is in this module's callbacks either, which hold a page each.
 */
void fp_devmem_destroy(struct fp_world *w)
{
	struct fp_devmem *d = w->devmem;
	u64 frame, count;

	if (!d)
		return;
	while (atomic_read(&d->live)) {
		for (frame = 0; frame < w->nframes; frame += count) {
			count = min_t(u64, w->nframes - frame, HPAGE_PMD_NR);
			fp_devmem_evict(w, frame, count);
			cond_resched();
		}
		if (atomic_read(&d->live))
			schedule_timeout_uninterruptible(1);
	}
	cancel_work_sync(&d->idle);
	memunmap_pages(&d->pagemap);
	fp_devmem_idle_work(&d->idle);
	w->devmem = NULL;
	fp_devmem_free(d);
}
