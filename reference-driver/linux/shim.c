// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The C side of the kernel host, see shim.h. It knows nothing of the driver: it owns pages, frames,
 * DMA addresses, waiting, threads and file descriptors, as the driver's host trait asks for them.
 *
 * Lifetime of pages: GPU accesses run under RCU, so a page that leaves the frame table or the DMA
 * table is freed only after a grace period; a stale translation finds nothing or another page.
 */
#include <linux/anon_inodes.h>
#include <linux/dma-mapping.h>
#include <linux/file.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/mmu_context.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <drm/drm_device.h>
#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_ioctl.h>
#include "shim.h"

/* offsets and DMA addresses start above what a driver could confuse with a size or a handle */
#define FP_FIRST_OFFSET	(1ull << 32)
#define FP_FIRST_DMA	(1ull << 32)
#define FP_GAP		SZ_2M

/*
 * Pages of objects: charged to the caller's memory cgroup, and ENOMEM rather than the OOM killer when
 * there are no more, since a size is the caller's wish.
 */
#define FP_GFP_PAGES	(GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN | __GFP_RETRY_MAYFAIL)

struct fp_bo {
	struct kref ref;
	struct rcu_work free;
	struct workqueue_struct *reclaim;
	u64 offset;
	u64 npages;
	struct page *pages[] __counted_by(npages);
};

struct fp_world {
	wait_queue_head_t wq;
	struct xarray bos;	/* offset >> PAGE_SHIFT -> struct fp_bo */
	struct xarray dma;	/* DMA address >> PAGE_SHIFT -> struct page */
	struct xarray mms;	/* task number -> mm_struct, grabbed */
	struct xarray syncs;	/* sync file number -> struct fp_fd */
	struct drm_device *drm;
	atomic64_t next_offset;
	atomic64_t next_dma;
	u32 next_mm;
	u64 nframes;
	struct page **frames;
	struct workqueue_struct *reclaim;	/* frees objects after a grace period */
};

/* ---- the world ------------------------------------------------------------------------------- */

struct fp_world *fp_world_create(u64 vram_frames)
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
	init_waitqueue_head(&w->wq);
	xa_init(&w->bos);
	xa_init(&w->dma);
	xa_init_flags(&w->mms, XA_FLAGS_ALLOC1);
	xa_init(&w->syncs);
	atomic64_set(&w->next_offset, FP_FIRST_OFFSET);
	atomic64_set(&w->next_dma, FP_FIRST_DMA);
	return w;
}

void fp_world_destroy(struct fp_world *w)
{
	struct mm_struct *mm;
	unsigned long index;

	WARN_ON(!xa_empty(&w->bos));
	WARN_ON(!xa_empty(&w->dma));
	WARN_ON(!xa_empty(&w->syncs));
	xa_for_each(&w->mms, index, mm)
		mmdrop(mm);
	xa_destroy(&w->mms);
	xa_destroy(&w->bos);
	xa_destroy(&w->dma);
	xa_destroy(&w->syncs);
	/* destroyed objects may still wait for their grace period */
	rcu_barrier();
	destroy_workqueue(w->reclaim);
	kvfree(w->frames);
	kfree(w);
}

void fp_world_set_drm(struct fp_world *w, struct drm_device *drm)
{
	w->drm = drm;
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
	if (ret >= 0)
		mmgrab(mm);
	xa_unlock(&w->mms);
	*task = id;
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

static void fp_bo_free(struct fp_bo *bo)
{
	u64 i;

	for (i = 0; i < bo->npages && bo->pages[i]; i++)
		put_page(bo->pages[i]);
	kvfree(bo);
}

static void fp_bo_free_work(struct work_struct *work)
{
	fp_bo_free(container_of(to_rcu_work(work), struct fp_bo, free));
}

static void fp_bo_release(struct kref *ref)
{
	struct fp_bo *bo = container_of(ref, struct fp_bo, ref);

	INIT_RCU_WORK(&bo->free, fp_bo_free_work);
	queue_rcu_work(bo->reclaim, &bo->free);
}

static struct fp_bo *fp_bo_find(struct fp_world *w, u64 offset)
{
	return xa_load(&w->bos, offset >> PAGE_SHIFT);
}

int fp_bo_create(struct fp_world *w, u64 size, u64 *offset)
{
	u64 npages = size >> PAGE_SHIFT, i;
	struct fp_bo *bo;
	int ret = -ENOMEM;

	bo = kvzalloc(struct_size(bo, pages, npages), GFP_KERNEL_ACCOUNT);
	if (!bo)
		return -ENOMEM;
	bo->npages = npages;
	bo->reclaim = w->reclaim;
	kref_init(&bo->ref);
	for (i = 0; i < npages; i++) {
		bo->pages[i] = alloc_page(FP_GFP_PAGES);
		if (!bo->pages[i])
			goto fail;
		if (fatal_signal_pending(current))
			goto fail;
		cond_resched();
	}
	bo->offset = atomic64_fetch_add(ALIGN(size, SZ_2M) + FP_GAP, &w->next_offset);
	ret = xa_err(xa_store(&w->bos, bo->offset >> PAGE_SHIFT, bo, GFP_KERNEL));
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
		smp_store_release(&w->frames[frame + i], bo->pages[page + i]);
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
	for (i = 0; i < count; i++) {
		ret = xa_err(xa_store(&w->dma, (first >> PAGE_SHIFT) + i, bo->pages[page + i],
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
	for (i = 0; i < count; i++)
		xa_erase(&w->dma, (addr >> PAGE_SHIFT) + i);
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
	struct page *page = frame < w->nframes ? smp_load_acquire(&w->frames[frame]) : NULL;

	return page ? page_address(page) : NULL;
}

void *fp_system_page(struct fp_world *w, u64 addr)
{
	struct page *page = xa_load(&w->dma, addr >> PAGE_SHIFT);

	return page ? page_address(page) : NULL;
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
 * 1 when ready, 0 when the deadline came first, -ERESTARTSYS upon a signal. The condition may
 * sleep (it takes the driver's locks and copies user memory), hence wait_woken().
 */
int fp_wait(struct fp_world *w, bool interruptible, u64 deadline_ns, bool (*ready)(void *ctx),
	    void *ctx)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	long timeout;
	int ret;

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
		if (interruptible && signal_pending(current)) {
			ret = -ERESTARTSYS;
			break;
		}
		wait_woken(&wait, interruptible ? TASK_INTERRUPTIBLE : TASK_UNINTERRUPTIBLE, timeout);
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
	struct fp_thread *t = kzalloc(sizeof(*t), GFP_KERNEL);
	struct task_struct *task;

	if (!t)
		return NULL;
	t->ctx = ctx;
	t->worker = worker;
	task = kthread_run(fp_thread_main, t, worker ? "fencepost-eng%u" : "fencepost-bind",
			   worker - 1);
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

/* ---- file descriptors ------------------------------------------------------------------------ */

struct fp_fd {
	struct fp_world *world;
	struct drm_device *drm;
	u32 kind;
	u64 id;
	wait_queue_head_t wq;
	bool signalled;
};

#define FP_FD_SYNC_FILE 2

static int fp_fd_release(struct inode *inode, struct file *file)
{
	struct fp_fd *f = file->private_data;

	if (f->kind == FP_FD_SYNC_FILE)
		xa_erase(&f->world->syncs, f->id);
	fp_rust_release_fd(f->drm, f->kind, f->id);
	drm_dev_put(f->drm);
	kfree(f);
	return 0;
}

static __poll_t fp_fd_poll(struct file *file, poll_table *wait)
{
	struct fp_fd *f = file->private_data;

	poll_wait(file, &f->wq, wait);
	return smp_load_acquire(&f->signalled) ? EPOLLIN : 0;
}

static const struct file_operations fp_fd_fops = {
	.owner = THIS_MODULE,
	.release = fp_fd_release,
	.poll = fp_fd_poll,
	.llseek = noop_llseek,
};

int fp_install_fd(struct fp_world *w, u32 kind, u64 id, bool cloexec)
{
	static const char * const names[] = { "fencepost-bo", "fencepost-syncobj", "sync_file" };
	struct fp_fd *f = kzalloc(sizeof(*f), GFP_KERNEL_ACCOUNT);
	struct file *file;
	int fd, ret;

	if (!f)
		return -ENOMEM;
	f->world = w;
	f->kind = kind;
	f->id = id;
	init_waitqueue_head(&f->wq);
	fd = get_unused_fd_flags(cloexec ? O_CLOEXEC : 0);
	if (fd < 0) {
		ret = fd;
		goto free;
	}
	if (kind == FP_FD_SYNC_FILE) {
		ret = xa_err(xa_store(&w->syncs, id, f, GFP_KERNEL));
		if (ret)
			goto put_fd;
	}
	f->drm = w->drm;
	drm_dev_get(f->drm);
	file = anon_inode_getfile(names[kind], &fp_fd_fops, f, O_RDWR);
	if (IS_ERR(file)) {
		ret = PTR_ERR(file);
		goto forget;
	}
	fd_install(fd, file);
	return fd;
forget:
	drm_dev_put(f->drm);
	if (kind == FP_FD_SYNC_FILE)
		xa_erase(&w->syncs, id);
put_fd:
	put_unused_fd(fd);
free:
	kfree(f);
	return ret;
}

/* 0: one of ours; 1: open, but something else */
int fp_lookup_fd(struct fp_world *w, int fd, u32 *kind, u64 *id)
{
	struct file *file = fget(fd);
	struct fp_fd *f;
	int ret = 1;

	if (!file)
		return -EBADF;
	f = file->private_data;
	if (file->f_op == &fp_fd_fops && f->world == w) {
		*kind = f->kind;
		*id = f->id;
		ret = 0;
	}
	fput(file);
	return ret;
}

void fp_sync_file_signal(struct fp_world *w, u64 id, int error)
{
	struct fp_fd *f;

	xa_lock(&w->syncs);
	f = xa_load(&w->syncs, id);
	if (f) {
		smp_store_release(&f->signalled, true);
		wake_up_all(&f->wq);
	}
	xa_unlock(&w->syncs);
}

/* ---- mmap ------------------------------------------------------------------------------------ */

struct fp_vma {
	refcount_t users;
	struct fp_bo *bo;
	void *mapping;	/* Rust's; keeps the object alive */
};

static void fp_vma_open(struct vm_area_struct *vma)
{
	struct fp_vma *v = vma->vm_private_data;

	refcount_inc(&v->users);
}

static void fp_vma_close(struct vm_area_struct *vma)
{
	struct fp_vma *v = vma->vm_private_data;

	if (!refcount_dec_and_test(&v->users))
		return;
	fp_rust_unmap(v->mapping);
	kref_put(&v->bo->ref, fp_bo_release);
	kfree(v);
}

static vm_fault_t fp_vma_fault(struct vm_fault *vmf)
{
	struct fp_vma *v = vmf->vma->vm_private_data;
	u64 page = vmf->pgoff - (v->bo->offset >> PAGE_SHIFT);

	if (page >= v->bo->npages)
		return VM_FAULT_SIGBUS;
	vmf->page = v->bo->pages[page];
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct fp_vm_ops = {
	.open = fp_vma_open,
	.close = fp_vma_close,
	.fault = fp_vma_fault,
};

static int fp_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct drm_file *file = filp->private_data;
	struct fp_world *w;
	struct fp_vma *v;
	u64 start;
	int ret;

	if (drm_dev_is_unplugged(file->minor->dev))
		return -ENODEV;
	v = kzalloc(sizeof(*v), GFP_KERNEL_ACCOUNT);
	if (!v)
		return -ENOMEM;
	refcount_set(&v->users, 1);
	ret = fp_rust_mmap(file, (u64)vma->vm_pgoff << PAGE_SHIFT, vma->vm_end - vma->vm_start,
			   &v->mapping, &start, (void **)&w);
	if (ret)
		goto free;
	v->bo = fp_bo_find(w, start);
	if (WARN_ON(!v->bo)) {
		ret = -EINVAL;
		goto unmap;
	}
	kref_get(&v->bo->ref);
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_private_data = v;
	vma->vm_ops = &fp_vm_ops;
	return 0;
unmap:
	fp_rust_unmap(v->mapping);
free:
	kfree(v);
	return ret;
}

/* ---- DRM ------------------------------------------------------------------------------------- */

/* The driver answers its own ioctls and those of the core that it owns; DRM the rest. */
static long fp_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct drm_file *file = filp->private_data;
	bool ours = false;
	long ret;

	if (drm_dev_is_unplugged(file->minor->dev))
		return -ENODEV;
	ret = fp_rust_ioctl(file, cmd, arg, &ours);
	return ours ? ret : drm_ioctl(filp, cmd, arg);
}

static struct drm_driver fp_driver;
static struct file_operations fp_fops;

/* Before registration: nobody else looks at the device. */
int fp_drm_patch(struct drm_device *drm)
{
	/* a faux device has no DMA mask */
	int ret = dma_coerce_mask_and_coherent(drm->dev, DMA_BIT_MASK(64));

	if (ret)
		return ret;
	fp_fops = *drm->driver->fops;
	fp_fops.owner = THIS_MODULE;	/* Rust leaves it NULL: rmmod under an open file would oops */
	fp_fops.unlocked_ioctl = fp_ioctl;
	fp_fops.compat_ioctl = NULL;
	fp_fops.mmap = fp_mmap;
	fp_driver = *drm->driver;
	fp_driver.fops = &fp_fops;
	drm->driver = &fp_driver;
	return 0;
}
