// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The C side of the DRM driver: objects with handles, dma-bufs from and to other drivers, and the
 * operations that Rust's abstraction of a DRM driver cannot set.
 */
#include <linux/compat.h>
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <drm/drm_debugfs.h>
#include <drm/drm_device.h>
#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_gem.h>
#include <drm/drm_ioctl.h>
#include <drm/drm_prime.h>
#include <drm/drm_print.h>
#include "shim_world.h"

/* ---- objects with handles -------------------------------------------------------------------- */

/*
 * What DRM knows of an object: it exists from the first handle to the last use by handles, CPU
 * mappings and dma-bufs. The driver's object may live longer, as long as a VM maps it.
 */
struct fp_gem {
	struct drm_gem_object base;
	struct fp_bo *bo;
	u64 id;
	bool private;
	void *gem;	/* Rust's; keeps the driver's object alive */
};

static struct fp_gem *to_fp_gem(struct drm_gem_object *obj)
{
	return container_of(obj, struct fp_gem, base);
}

static void fp_gem_free(struct drm_gem_object *obj)
{
	struct fp_gem *g = to_fp_gem(obj);

	drm_gem_object_release(obj);
	fp_rust_gem_free(g->gem);
	kref_put(&g->bo->ref, fp_bo_release);
	kfree(g);
}

static struct dma_buf *fp_gem_export(struct drm_gem_object *obj, int flags)
{
	/* an object that lives and locks with its VM can be nobody else's */
	return to_fp_gem(obj)->private ? ERR_PTR(-EINVAL) : drm_gem_prime_export(obj, flags);
}

static struct sg_table *fp_gem_sg_table(struct drm_gem_object *obj)
{
	struct fp_bo *bo = to_fp_gem(obj)->bo;

	return drm_prime_pages_to_sg(obj->dev, bo->pages, bo->nown);
}

static int fp_gem_vmap(struct drm_gem_object *obj, struct iosys_map *map)
{
	struct fp_bo *bo = to_fp_gem(obj)->bo;
	void *vaddr = vmap(bo->pages, bo->nown, VM_MAP, PAGE_KERNEL);

	if (!vaddr)
		return -ENOMEM;
	iosys_map_set_vaddr(map, vaddr);
	return 0;
}

static void fp_gem_vunmap(struct drm_gem_object *obj, struct iosys_map *map)
{
	vunmap(map->vaddr);
}

static int fp_gem_mmap(struct drm_gem_object *obj, struct vm_area_struct *vma)
{
	int ret;

	if (drm_gem_is_imported(obj)) {
		/* the mapping becomes the exporter's, who need not set what DRM has set */
		vma->vm_private_data = NULL;
		vma->vm_ops = NULL;
		ret = dma_buf_mmap(obj->import_attach->dmabuf, vma, 0);
		if (!ret)
			drm_gem_object_put(obj);
		return ret;
	}
	vma->vm_pgoff -= drm_vma_node_start(&obj->vma_node);
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	return 0;
}

static vm_fault_t fp_gem_fault(struct vm_fault *vmf)
{
	struct fp_bo *bo = to_fp_gem(vmf->vma->vm_private_data)->bo;

	if (vmf->pgoff >= bo->nown)
		return VM_FAULT_SIGBUS;
	vmf->page = bo->pages[vmf->pgoff];
	get_page(vmf->page);
	return 0;
}

static enum drm_gem_object_status fp_gem_status(struct drm_gem_object *obj)
{
	return DRM_GEM_OBJECT_RESIDENT;
}

static const struct vm_operations_struct fp_gem_vm_ops = {
	.open = drm_gem_vm_open,
	.close = drm_gem_vm_close,
	.fault = fp_gem_fault,
};

static const struct drm_gem_object_funcs fp_gem_funcs = {
	.free = fp_gem_free,
	.export = fp_gem_export,
	.get_sg_table = fp_gem_sg_table,
	.vmap = fp_gem_vmap,
	.vunmap = fp_gem_vunmap,
	.mmap = fp_gem_mmap,
	.status = fp_gem_status,
	.vm_ops = &fp_gem_vm_ops,
};

/* Takes `gem` over in any case; the object comes with one reference. */
static struct fp_gem *fp_gem_new(struct drm_device *drm, const struct fp_new_gem *new, void *gem)
{
	struct fp_bo *bo = fp_bo_find(new->world, new->mem);
	struct fp_gem *g = kzalloc(sizeof(*g), GFP_KERNEL_ACCOUNT);

	if (WARN_ON(!bo) || !g) {
		kfree(g);
		fp_rust_gem_free(gem);
		return NULL;
	}
	kref_get(&bo->ref);
	g->bo = bo;
	g->id = new->id;
	g->private = new->private;
	g->gem = gem;
	g->base.funcs = &fp_gem_funcs;
	drm_gem_private_object_init(drm, &g->base, bo->npages << PAGE_SHIFT);
	return g;
}

int fp_gem_create_handle(struct drm_file *file, const struct fp_new_gem *new, void *gem,
			 u32 *handle)
{
	struct fp_gem *g = fp_gem_new(file->minor->dev, new, gem);
	int ret;

	if (!g)
		return -ENOMEM;
	ret = drm_gem_handle_create(file, &g->base, handle);
	drm_gem_object_put(&g->base);
	return ret;
}

/* The object keeps `*gem` alive until fp_gem_put(). */
struct drm_gem_object *fp_gem_find(struct drm_file *file, u32 handle, void **gem)
{
	struct drm_gem_object *obj = drm_gem_object_lookup(file, handle);

	if (obj)
		*gem = to_fp_gem(obj)->gem;
	return obj;
}

void fp_gem_put(struct drm_gem_object *obj)
{
	drm_gem_object_put(obj);
}

u32 fp_gem_handle_of(struct drm_file *file, u64 id)
{
	struct drm_gem_object *obj;
	int handle;

	spin_lock(&file->table_lock);
	idr_for_each_entry(&file->object_idr, obj, handle) {
		if (obj && to_fp_gem(obj)->id == id)
			break;
	}
	spin_unlock(&file->table_lock);
	return obj ? handle : 0;
}

int fp_gem_mmap_offset(struct drm_file *file, u32 handle, u64 *offset)
{
	struct drm_gem_object *obj = drm_gem_object_lookup(file, handle);
	int ret;

	if (!obj)
		return -ENOENT;
	ret = drm_gem_create_mmap_offset(obj);
	*offset = drm_vma_node_offset_addr(&obj->vma_node);
	drm_gem_object_put(obj);
	return ret;
}

/* An object of another driver: reached through the mapping that its driver gives the kernel. */
static struct drm_gem_object *fp_gem_import(struct drm_device *drm,
					    struct dma_buf_attachment *attach,
					    struct sg_table *sgt)
{
	struct fp_new_gem new = { .world = fp_rust_world(drm) };
	u64 size = attach->dmabuf->size;
	struct fp_bo *bo = fp_bo_alloc(new.world, size >> PAGE_SHIFT, 0);
	struct fp_gem *g;
	void *gem;
	int ret;

	if (!bo)
		return ERR_PTR(-ENOMEM);
	ret = PAGE_ALIGNED(size) ? dma_buf_vmap_unlocked(attach->dmabuf, &bo->map) : -EINVAL;
	if (ret)
		goto free;
	/* the memory of a bus cannot be used word by word as this driver's engines do */
	ret = bo->map.is_iomem ? -EOPNOTSUPP : fp_bo_publish(new.world, bo);
	if (ret)
		goto unmap;
	new.mem = bo->offset;
	kref_get(&bo->ref);
	/* owns the number from here on */
	ret = fp_rust_import(drm, new.mem, size, &gem, &new.id);
	if (ret)
		goto put;
	g = fp_gem_new(drm, &new, gem);
	if (!g) {
		ret = -ENOMEM;
		goto put;
	}
	bo->attach = attach;
	bo->sgt = sgt;
	kref_put(&bo->ref, fp_bo_release);
	return &g->base;
put:
	/* the caller gives the attachment back: the last use of the mapping must be before */
	synchronize_rcu();
	dma_buf_vunmap_unlocked(attach->dmabuf, &bo->map);
	kref_put(&bo->ref, fp_bo_release);
	return ERR_PTR(ret);
unmap:
	dma_buf_vunmap_unlocked(attach->dmabuf, &bo->map);
free:
	kvfree(bo);
	return ERR_PTR(ret);
}

/* ---- DRM ------------------------------------------------------------------------------------- */

static long fp_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct drm_file *file = filp->private_data;
	unsigned int nr = DRM_IOCTL_NR(cmd);
	long ret;

	if (drm_dev_is_unplugged(file->minor->dev))
		return -ENODEV;
	fp_planted(FP_IN_CALL);
	if (_IOC_TYPE(cmd) == DRM_IOCTL_BASE && nr >= DRM_COMMAND_BASE && nr < DRM_COMMAND_END)
		return fp_rust_ioctl(file, cmd, arg);
	ret = drm_ioctl(filp, cmd, arg);
	fp_rust_count(file, cmd, !ret);
	return ret;
}

#ifdef CONFIG_COMPAT
/* The driver's records have no pointers of a size: only the DRM core's need to be converted. */
static long fp_compat_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	unsigned int nr = DRM_IOCTL_NR(cmd);

	if (_IOC_TYPE(cmd) == DRM_IOCTL_BASE && nr >= DRM_COMMAND_BASE && nr < DRM_COMMAND_END)
		return fp_ioctl(filp, cmd, (unsigned long)compat_ptr(arg));
	return drm_compat_ioctl(filp, cmd, arg);
}
#else
#define fp_compat_ioctl NULL
#endif

static int (*fp_rust_open)(struct drm_device *drm, struct drm_file *file);

static int fp_open(struct drm_device *drm, struct drm_file *file)
{
	int ret = fp_rust_open(drm, file);

	if (!ret)
		fp_rust_opened(file);
	return ret;
}

static void fp_show_fdinfo(struct drm_printer *p, struct drm_file *file)
{
	drm_show_memory_stats(p, file);
}

static int fp_show_vas(struct seq_file *m, void *unused)
{
	struct drm_debugfs_entry *entry = m->private;
	struct drm_device *drm = entry->dev;
	struct drm_file *file;
	int ret = mutex_lock_interruptible(&drm->filelist_mutex);

	if (ret)
		return ret;
	list_for_each_entry(file, &drm->filelist, lhead) {
		struct pid *pid;

		rcu_read_lock();
		pid = rcu_dereference(file->pid);
		seq_printf(m, "client %llu pid %d\n", file->client_id, pid_nr(pid));
		rcu_read_unlock();
		ret = fp_rust_show_vas(file, m);
		if (ret)
			break;
	}
	mutex_unlock(&drm->filelist_mutex);
	return ret;
}

void fp_show_vm(struct seq_file *m, u32 vm, u64 start, u64 end)
{
	seq_printf(m, "  vm %u [0x%012llx, 0x%012llx)\n", vm, start, end);
}

void fp_show_va(struct seq_file *m, const struct fp_va *va)
{
	seq_printf(m, "    [0x%012llx, 0x%012llx) flags 0x%x object %llu offset 0x%llx ptes %u/%u/%u\n",
		   va->addr, va->addr + va->range, va->flags, va->object, va->offset, va->ptes[0],
		   va->ptes[1], va->ptes[2]);
}

static const struct drm_debugfs_info fp_debugfs[] = {
	{ .name = "gpuvas", .show = fp_show_vas },
};

static struct drm_driver fp_driver;
static struct file_operations fp_fops;

/* Before registration: nobody else looks at the device. */
int fp_drm_patch(struct drm_device *drm)
{
	/* a faux device has no DMA mask */
	int ret = dma_coerce_mask_and_coherent(drm->dev, DMA_BIT_MASK(64));

	if (ret)
		return ret;
	/* the same for every device, and not to be touched once one is registered */
	if (!fp_driver.fops) {
		fp_fops = *drm->driver->fops;
		/* Rust leaves it NULL: rmmod under an open file would oops */
		fp_fops.owner = THIS_MODULE;
		fp_fops.unlocked_ioctl = fp_ioctl;
		fp_fops.compat_ioctl = fp_compat_ioctl;
		fp_fops.show_fdinfo = drm_show_fdinfo;
		fp_driver = *drm->driver;
		fp_driver.driver_features |= DRIVER_SYNCOBJ | DRIVER_SYNCOBJ_TIMELINE;
		fp_driver.gem_prime_import_sg_table = fp_gem_import;
		fp_driver.show_fdinfo = fp_show_fdinfo;
		fp_rust_open = fp_driver.open;
		fp_driver.open = fp_open;
		fp_driver.fops = &fp_fops;
	}
	drm->driver = &fp_driver;
	drm_debugfs_add_files(drm, fp_debugfs, ARRAY_SIZE(fp_debugfs));
	return 0;
}

MODULE_IMPORT_NS("DMA_BUF");
