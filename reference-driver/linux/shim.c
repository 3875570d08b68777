// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The C side of the kernel host, see shim.h. It knows nothing of the driver: it owns pages, frames,
 * DMA addresses, waiting, threads and file descriptors, as the driver's host trait asks for them.
 *
 * Lifetime of pages: GPU accesses run under RCU, so a page that leaves the frame table or the DMA
 * table is freed only after a grace period; a stale translation finds nothing or another page.
 */
#include <linux/dma-buf.h>
#include <linux/dma-fence.h>
#include <linux/dma-fence-chain.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/mmu_context.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <drm/drm_file.h>
#include <drm/drm_syncobj.h>
#include "shim_world.h"

/* offsets and DMA addresses start above what a driver could confuse with a size or a handle */
#define FP_FIRST_OFFSET	(1ull << 32)
#define FP_GAP		SZ_2M

/*
 * Pages of objects: charged to the caller's memory cgroup, and ENOMEM rather than the OOM killer when
 * there are no more, since a size is the caller's wish.
 */
#define FP_GFP_PAGES	(GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN | __GFP_RETRY_MAYFAIL)

/* ---- the world ------------------------------------------------------------------------------- */

struct fp_world *fp_world_create(u64 vram_frames, u32 number, u64 owner)
{
	struct fp_world *w = kzalloc(sizeof(*w), GFP_KERNEL);

	if (!w)
		return NULL;
	w->frames = kvcalloc(max(vram_frames, 1), sizeof(*w->frames), GFP_KERNEL);
	w->reclaim = alloc_workqueue("fencepost-reclaim", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!w->frames || !w->reclaim) {
		if (w->reclaim)
			destroy_workqueue(w->reclaim);
		kvfree(w->frames);
		kfree(w);
		return NULL;
	}
	w->nframes = vram_frames;
	w->number = number;
	w->owner = owner;
	init_waitqueue_head(&w->wq);
	xa_init_flags(&w->bos, XA_FLAGS_ACCOUNT);
	xa_init_flags(&w->dma, XA_FLAGS_ACCOUNT);
	xa_init_flags(&w->mms, XA_FLAGS_ALLOC1 | XA_FLAGS_ACCOUNT);
	atomic64_set(&w->next_offset, FP_FIRST_OFFSET);
	atomic64_set(&w->next_dma, FP_FIRST_DMA);
	fp_mirror_init(w);
	if (fp_devmem_create(w)) {
		fp_world_destroy(w);
		return NULL;
	}
	return w;
}

/* From now on the driver is told of invalidations and CPU faults. */
void fp_world_attach(struct fp_world *w, void *driver)
{
	w->driver = driver;
}

/* No file is open: nobody will tell the driver anything when this returns. */
void fp_world_detach(struct fp_world *w)
{
	fp_devmem_destroy(w);
	w->driver = NULL;
}

void fp_world_destroy(struct fp_world *w)
{
	struct mm_struct *mm;
	unsigned long index;

	WARN_ON(!xa_empty(&w->bos));
	WARN_ON(!xa_empty(&w->dma));
	xa_for_each(&w->mms, index, mm)
		mmdrop(mm);
	xa_destroy(&w->mms);
	xa_destroy(&w->bos);
	xa_destroy(&w->dma);
	fp_devmem_destroy(w);
	fp_mirror_fini(w);
	/* destroyed objects may still wait for their grace period */
	rcu_barrier();
	destroy_workqueue(w->reclaim);
	kvfree(w->frames);
	kfree(w);
}

/* ---- time and user memory -------------------------------------------------------------------- */

u64 fp_now_ns(void)
{
	return ktime_get_ns();
}

/*
 * The number of the caller's address space. Only the mm_struct itself is held (mmgrab), so a
 * process that exits frees its memory; copies to it then fail. Dead ones are dropped here.
 */
int fp_task_current(struct fp_world *w, u64 *task)
{
	struct mm_struct *mm = current->mm, *other;
	unsigned long index;
	u32 id;
	int ret;

	if (!mm)
		return -EFAULT;
	xa_lock(&w->mms);
	xa_for_each(&w->mms, index, other) {
		if (other == mm) {
			xa_unlock(&w->mms);
			*task = index;
			return 0;
		}
		if (!atomic_read(&other->mm_users)) {
			__xa_erase(&w->mms, index);
			mmdrop(other);
		}
	}
	ret = __xa_alloc_cyclic(&w->mms, &id, mm, xa_limit_32b, &w->next_mm, GFP_KERNEL);
	if (ret >= 0) {
		mmgrab(mm);
		*task = id;
	}
	xa_unlock(&w->mms);
	return ret < 0 ? ret : 0;
}

/* Enters the address space of a task; *mm is NULL when it is the caller's own. */
static int fp_enter(struct fp_world *w, u64 task, struct mm_struct **mm)
{
	struct mm_struct *found;
	int ret = 0;

	*mm = NULL;
	xa_lock(&w->mms);
	found = xa_load(&w->mms, task);
	if (!found)
		ret = -EFAULT;
	else if (found != current->mm) {
		if (!(current->flags & PF_KTHREAD) || !mmget_not_zero(found))
			ret = -EFAULT;
		else
			*mm = found;
	}
	xa_unlock(&w->mms);
	if (*mm)
		kthread_use_mm(*mm);
	return ret;
}

static void fp_leave(struct mm_struct *mm)
{
	if (!mm)
		return;
	kthread_unuse_mm(mm);
	mmput_async(mm);
}

int fp_copy_from_user(struct fp_world *w, u64 task, void *to, u64 addr, size_t len)
{
	struct mm_struct *mm;
	int ret = fp_enter(w, task, &mm);

	if (ret)
		return ret;
	if (copy_from_user(to, u64_to_user_ptr(addr), len))
		ret = -EFAULT;
	fp_leave(mm);
	return ret;
}

int fp_copy_to_user(struct fp_world *w, u64 task, u64 addr, const void *from, size_t len)
{
	struct mm_struct *mm;
	int ret = fp_enter(w, task, &mm);

	if (ret)
		return ret;
	if (copy_to_user(u64_to_user_ptr(addr), from, len))
		ret = -EFAULT;
	fp_leave(mm);
	return ret;
}

/* ---- memory of buffer objects ---------------------------------------------------------------- */

/* Takes a sleeping context: it gives an attachment back. */
static void fp_bo_free(struct fp_bo *bo)
{
	struct dma_buf *dmabuf;
	u64 i;

	for (i = 0; i < bo->nown && bo->pages[i]; i++) {
		put_page(bo->pages[i]);
		cond_resched();
	}
	if (bo->attach) {
		dmabuf = bo->attach->dmabuf;
		dma_buf_vunmap_unlocked(dmabuf, &bo->map);
		dma_buf_unmap_attachment_unlocked(bo->attach, bo->sgt, DMA_BIDIRECTIONAL);
		dma_buf_detach(dmabuf, bo->attach);
		dma_buf_put(dmabuf);
	}
	kvfree(bo);
}

static void fp_bo_free_work(struct work_struct *work)
{
	fp_bo_free(container_of(to_rcu_work(work), struct fp_bo, free));
}

void fp_bo_release(struct kref *ref)
{
	struct fp_bo *bo = container_of(ref, struct fp_bo, ref);

	INIT_RCU_WORK(&bo->free, fp_bo_free_work);
	queue_rcu_work(bo->reclaim, &bo->free);
}

struct fp_bo *fp_bo_find(struct fp_world *w, u64 offset)
{
	return xa_load(&w->bos, offset >> PAGE_SHIFT);
}

static void *fp_bo_page(struct fp_bo *bo, u64 page)
{
	return bo->nown ? page_address(bo->pages[page]) : bo->map.vaddr + (page << PAGE_SHIFT);
}

struct fp_bo *fp_bo_alloc(struct fp_world *w, u64 npages, u64 nown)
{
	struct fp_bo *bo = kvzalloc(struct_size(bo, pages, nown), GFP_KERNEL_ACCOUNT);

	if (!bo)
		return NULL;
	bo->npages = npages;
	bo->nown = nown;
	bo->reclaim = w->reclaim;
	kref_init(&bo->ref);
	return bo;
}

/* Gives an object its number, by which it can be found from then on. */
int fp_bo_publish(struct fp_world *w, struct fp_bo *bo)
{
	bo->offset = atomic64_fetch_add(ALIGN(bo->npages << PAGE_SHIFT, SZ_2M) + FP_GAP,
					&w->next_offset);
	return xa_err(xa_store(&w->bos, bo->offset >> PAGE_SHIFT, bo, GFP_KERNEL));
}

int fp_bo_create(struct fp_world *w, u64 size, u64 *offset)
{
	u64 npages = size >> PAGE_SHIFT, i;
	struct fp_bo *bo;
	int ret = -ENOMEM;

	bo = fp_bo_alloc(w, npages, npages);
	if (!bo)
		return -ENOMEM;
	for (i = 0; i < npages; i++) {
		bo->pages[i] = alloc_page(FP_GFP_PAGES);
		if (!bo->pages[i])
			goto fail;
		if (fatal_signal_pending(current))
			goto fail;
		cond_resched();
	}
	ret = fp_bo_publish(w, bo);
	if (ret)
		goto fail;
	*offset = bo->offset;
	return 0;
fail:
	fp_bo_free(bo);
	return ret;
}

void fp_bo_destroy(struct fp_world *w, u64 offset)
{
	struct fp_bo *bo = xa_erase(&w->bos, offset >> PAGE_SHIFT);

	if (!WARN_ON(!bo))
		kref_put(&bo->ref, fp_bo_release);
}

int fp_vram_bind(struct fp_world *w, u64 frame, u64 offset, u64 page, u64 count)
{
	struct fp_bo *bo = fp_bo_find(w, offset);
	u64 i;

	if (WARN_ON(!bo || page + count > bo->npages || frame + count > w->nframes))
		return -EIO;
	for (i = 0; i < count; i++)
		smp_store_release(&w->frames[frame + i], fp_bo_page(bo, page + i));
	return 0;
}

void fp_vram_unbind(struct fp_world *w, u64 frame, u64 count)
{
	u64 i;

	if (WARN_ON(frame + count > w->nframes))
		return;
	for (i = 0; i < count; i++)
		WRITE_ONCE(w->frames[frame + i], NULL);
}

int fp_dma_map(struct fp_world *w, u64 offset, u64 page, u64 count, u64 *addr)
{
	struct fp_bo *bo = fp_bo_find(w, offset);
	u64 first, i;
	int ret;

	if (WARN_ON(!bo || page + count > bo->npages))
		return -EIO;
	/* addresses are not used again; 2 MiB alignment suits every page size */
	first = atomic64_fetch_add(ALIGN(count << PAGE_SHIFT, SZ_2M), &w->next_dma);
	if (first + (count << PAGE_SHIFT) > FP_MIRROR_DMA)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		ret = xa_err(xa_store(&w->dma, (first >> PAGE_SHIFT) + i, fp_bo_page(bo, page + i),
				      GFP_KERNEL));
		if (ret) {
			fp_dma_unmap(w, first, i);
			return ret;
		}
	}
	*addr = first;
	return 0;
}

void fp_dma_unmap(struct fp_world *w, u64 addr, u64 count)
{
	u64 i;

	/* storing NULL over an entry allocates nothing */
	for (i = 0; i < count; i++) {
		xa_erase(&w->dma, (addr >> PAGE_SHIFT) + i);
		cond_resched();
	}
}

void fp_access_begin(void)
{
	rcu_read_lock();
}

void fp_access_end(void)
{
	rcu_read_unlock();
}

void *fp_vram_page(struct fp_world *w, u64 addr)
{
	u64 frame = addr >> PAGE_SHIFT;

	return frame < w->nframes ? smp_load_acquire(&w->frames[frame]) : NULL;
}

void *fp_system_page(struct fp_world *w, u64 addr)
{
	if (addr >= FP_MIRROR_DMA)
		return fp_mirrored_page(w, addr);
	return xa_load(&w->dma, addr >> PAGE_SHIFT);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static long fp_timeout(u64 deadline_ns)
{
	u64 now = ktime_get_ns();

	if (deadline_ns == U64_MAX)
		return MAX_SCHEDULE_TIMEOUT;
	if (deadline_ns <= now)
		return 0;
	return min_t(u64, nsecs_to_jiffies64(deadline_ns - now) + 1, MAX_SCHEDULE_TIMEOUT - 1);
}

/*
 * 1 when ready, 0 when the deadline came first, -ERESTARTSYS upon a signal, of which SIGKILL always
 * counts: nobody is left to see that a call which cannot be undone was not waited for. A task that
 * already exits goes on waiting: closing its files is work to be finished. The condition may sleep
 * (it takes the driver's locks and copies user memory), hence wait_woken().
 */
int fp_wait(struct fp_world *w, bool interruptible, u64 deadline_ns, bool (*ready)(void *ctx),
	    void *ctx)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	unsigned int mode = interruptible ? TASK_INTERRUPTIBLE : TASK_KILLABLE;
	long timeout;
	int ret;

	if (current->flags & PF_EXITING)
		mode = TASK_UNINTERRUPTIBLE;
	add_wait_queue(&w->wq, &wait);
	for (;;) {
		timeout = fp_timeout(deadline_ns);
		if (ready(ctx)) {
			ret = 1;
			break;
		}
		if (!timeout) {
			ret = 0;
			break;
		}
		if (signal_pending_state(mode, current)) {
			ret = -ERESTARTSYS;
			break;
		}
		wait_woken(&wait, mode, timeout);
	}
	remove_wait_queue(&w->wq, &wait);
	return ret;
}

/* Callable with locks held and from the fence path. */
void fp_wake(struct fp_world *w)
{
	wake_up_all(&w->wq);
}

struct fp_thread {
	struct task_struct *task;
	void *ctx;
	u32 worker;
};

static int fp_thread_main(void *data)
{
	struct fp_thread *t = data;

	fp_rust_worker(t->ctx, t->worker);
	/* kthread_stop() must find the task */
	set_current_state(TASK_INTERRUPTIBLE);
	while (!kthread_should_stop()) {
		schedule();
		set_current_state(TASK_INTERRUPTIBLE);
	}
	__set_current_state(TASK_RUNNING);
	return 0;
}

struct fp_thread *fp_thread_run(struct fp_world *w, u32 worker, void *ctx)
{
	static const char * const names[] = { "bind", "clean", "ufence", "fault" };
	struct fp_thread *t = kzalloc(sizeof(*t), GFP_KERNEL);
	struct task_struct *task;

	if (!t)
		return NULL;
	t->ctx = ctx;
	t->worker = worker;
	if (worker < ARRAY_SIZE(names))
		task = kthread_run(fp_thread_main, t, "fencepost-%s", names[worker]);
	else
		task = kthread_run(fp_thread_main, t, "fencepost-eng%u",
				   worker - (u32)ARRAY_SIZE(names));
	if (IS_ERR(task)) {
		kfree(t);
		return NULL;
	}
	t->task = task;
	return t;
}

void fp_thread_stop(struct fp_thread *t)
{
	kthread_stop(t->task);
	kfree(t);
}

/* A thread with work without end must pass a point of rest, for RCU tasks and without preemption. */
void fp_thread_breathe(void)
{
	cond_resched_tasks_rcu_qs();
}

bool fp_thread_should_stop(void)
{
	return kthread_should_stop();
}

void fp_thread_wait(struct fp_world *w, u64 until_ns, bool (*ready)(void *ctx), void *ctx)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	long timeout;

	add_wait_queue(&w->wq, &wait);
	timeout = fp_timeout(until_ns);
	if (timeout && !kthread_should_stop() && !ready(ctx))
		wait_woken(&wait, TASK_IDLE, timeout);
	remove_wait_queue(&w->wq, &wait);
}

/* ---- fences ---------------------------------------------------------------------------------- */

static const char *fp_fence_name(struct dma_fence *fence)
{
	return "fencepost";
}

/* No release and no wait: a signalled fence may outlive this module. */
static const struct dma_fence_ops fp_fence_ops = {
	.get_driver_name = fp_fence_name,
	.get_timeline_name = fp_fence_name,
};

/* Each has a context of its own: jobs of a queue signal in order, binds that are unwound do not. */
struct dma_fence *fp_fence_create(void)
{
	struct dma_fence *fence = kzalloc(sizeof(*fence), GFP_KERNEL_ACCOUNT);

	if (fence)
		dma_fence_init64(fence, &fp_fence_ops, NULL, dma_fence_context_alloc(1), 1);
	return fence;
}

struct dma_fence *fp_fence_stub(void)
{
	return dma_fence_get_stub();
}

void fp_fence_put(struct dma_fence *fence)
{
	dma_fence_put(fence);
}

bool fp_fence_is_signalled(struct dma_fence *fence)
{
	return dma_fence_is_signaled(fence);
}

/* 0 or a positive errno */
int fp_fence_error(struct dma_fence *fence)
{
	return max(-dma_fence_get_status(fence), 0);
}

/* True for the call that signalled it. */
bool fp_fence_signal(struct dma_fence *fence, int error)
{
	bool cookie = dma_fence_begin_signalling();
	unsigned long flags;
	bool first;

	dma_fence_lock_irqsave(fence, flags);
	first = !dma_fence_test_signaled_flag(fence);
	if (first) {
		if (error)
			dma_fence_set_error(fence, -error);
		dma_fence_signal_locked(fence);
	}
	dma_fence_unlock_irqrestore(fence, flags);
	dma_fence_end_signalling(cookie);
	return first;
}

bool fp_fence_path_begin(void)
{
	bool cookie = dma_fence_begin_signalling();

	fp_planted(FP_IN_FENCE_PATH);
	return cookie;
}

void fp_fence_path_end(bool cookie)
{
	dma_fence_end_signalling(cookie);
}

struct fp_watch {
	struct dma_fence_cb cb;
	struct dma_fence *fence;
	struct fp_world *world;
	bool armed;
};

static void fp_watch_fired(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	fp_wake(container_of(cb, struct fp_watch, cb)->world);
}

/* Wakes the world's waiters when the fence signals, until fp_fence_unwatch(). */
struct fp_watch *fp_fence_watch(struct fp_world *w, struct dma_fence *fence)
{
	struct fp_watch *watch = kzalloc(sizeof(*watch), GFP_KERNEL_ACCOUNT);

	if (!watch)
		return NULL;
	watch->fence = fence;
	watch->world = w;
	watch->armed = !dma_fence_add_callback(fence, &watch->cb, fp_watch_fired);
	return watch;
}

void fp_fence_unwatch(struct fp_watch *watch)
{
	/* takes the fence's lock, so a callback under way has ended after it */
	if (watch->armed)
		dma_fence_remove_callback(watch->fence, &watch->cb);
	kfree(watch);
}

/* ---- syncobjs -------------------------------------------------------------------------------- */

struct drm_syncobj *fp_syncobj_find(struct drm_file *file, u32 handle)
{
	return drm_syncobj_find(file, handle);
}

void fp_syncobj_put(struct drm_syncobj *syncobj)
{
	drm_syncobj_put(syncobj);
}

/* drm_syncobj_find_fence() for a syncobj that is known already */
int fp_syncobj_fence(struct drm_syncobj *syncobj, u64 point, struct dma_fence **out)
{
	struct dma_fence *fence = drm_syncobj_fence_get(syncobj);
	int ret;

	if (!fence)
		return -EINVAL;
	ret = dma_fence_chain_find_seqno(&fence, point);
	if (ret) {
		dma_fence_put(fence);
		return ret;
	}
	/* a point that has signalled and gone is found as nothing */
	*out = fence ? fence : dma_fence_get_stub();
	return 0;
}

void fp_syncobj_replace(struct drm_syncobj *syncobj, struct dma_fence *fence)
{
	drm_syncobj_replace_fence(syncobj, fence);
}

struct dma_fence_chain *fp_chain_alloc(void)
{
	return dma_fence_chain_alloc();
}

void fp_chain_free(struct dma_fence_chain *chain)
{
	dma_fence_chain_free(chain);
}

void fp_syncobj_add_point(struct drm_syncobj *syncobj, struct dma_fence_chain *chain,
			  struct dma_fence *fence, u64 point)
{
	drm_syncobj_add_point(syncobj, chain, fence, point);
}
