// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The kernel's side of the check, see gpuvm.h. It does what a driver does with drm_gpuvm, after the
 * examples in drm_gpuvm.c: VAs are allocated with kzalloc() as they are needed, linked to the
 * drm_gpuvm_bo of their object, and freed when they are unmapped. All objects share the VM's
 * reservation, which is held for the length of a call, or of a turn of the benchmark.
 */
#include <linux/debugfs.h>
#include <linux/device/faux.h>
#include <linux/dma-fence.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <drm/drm_drv.h>
#include <drm/drm_gem.h>
#include <drm/drm_gpuvm.h>
#include "gpuvm.h"

struct fpg_object {
	struct drm_gem_object base;
	u64 id;
};

struct fpg {
	struct drm_gpuvm base;
	/* in a request: where operations are told, and the object that is mapped */
	struct fpg_list *out;
	struct drm_gpuvm_bo *vm_bo;
	u64 count;
	struct drm_gem_object *objects[] __counted_by(count);
};

static struct faux_device *fpg_parent;
static struct drm_device *fpg_drm;
static struct dentry *fpg_folder;

static const struct drm_driver fpg_driver = {
	.driver_features = DRIVER_GEM | DRIVER_GEM_GPUVA,
	.name = "fencepost_gpuva",
	.desc = "fencepost GPUVA check",
	.major = 1,
};

static struct fpg *to_fpg(struct drm_gpuvm *base)
{
	return container_of(base, struct fpg, base);
}

static struct drm_gem_object *object_of(struct fpg *vm, u64 id)
{
	return id ? vm->objects[id - 1] : NULL;
}

static struct fpg_map describe(u64 addr, u64 range, struct drm_gem_object *obj, u64 offset)
{
	return (struct fpg_map){
		.start = addr,
		.end = addr + range,
		.object = obj ? container_of(obj, struct fpg_object, base)->id : 0,
		/* without an object there is nothing that an offset could be in */
		.offset = obj ? offset : 0,
	};
}

static struct fpg_map describe_va(const struct drm_gpuva *va)
{
	return describe(va->va.addr, va->va.range, va->gem.obj, va->gem.offset);
}

static struct fpg_map describe_map(const struct drm_gpuva_op_map *map)
{
	return describe(map->va.addr, map->va.range, map->gem.obj, map->gem.offset);
}

static int put(struct fpg_list *out, const struct fpg_op *op)
{
	if (out->len == out->cap)
		return -ENOBUFS;
	out->ops[out->len++] = *op;
	return 0;
}

static int tell(struct fpg_list *out, const struct drm_gpuva_op *op)
{
	struct fpg_op told = {};

	if (!out)
		return 0;
	switch (op->op) {
	case DRM_GPUVA_OP_MAP:
		told.kind = FPG_MAP;
		told.map = describe_map(&op->map);
		break;
	case DRM_GPUVA_OP_REMAP:
		told.kind = FPG_REMAP;
		told.keep = op->remap.unmap->keep;
		told.map = describe_va(op->remap.unmap->va);
		told.has_prev = !!op->remap.prev;
		if (op->remap.prev)
			told.prev = describe_map(op->remap.prev);
		told.has_next = !!op->remap.next;
		if (op->remap.next)
			told.next = describe_map(op->remap.next);
		break;
	case DRM_GPUVA_OP_UNMAP:
		told.kind = FPG_UNMAP;
		told.keep = op->unmap.keep;
		told.map = describe_va(op->unmap.va);
		break;
	case DRM_GPUVA_OP_PREFETCH:
		told.kind = FPG_PREFETCH;
		told.map = describe_va(op->prefetch.va);
		break;
	default:
		return -EPROTO;
	}
	return put(out, &told);
}

/* ---- the driver's part of each operation ------------------------------------------------------ */

static int step_map(struct drm_gpuva_op *op, void *priv)
{
	struct fpg *vm = priv;
	struct drm_gpuva *va;
	int ret = tell(vm->out, op);

	if (ret)
		return ret;
	va = kzalloc_obj(*va);
	if (!va)
		return -ENOMEM;
	drm_gpuva_map(&vm->base, va, &op->map);
	drm_gpuva_link(va, vm->vm_bo);
	return 0;
}

static int step_remap(struct drm_gpuva_op *op, void *priv)
{
	struct fpg *vm = priv;
	struct drm_gpuva *va = op->remap.unmap->va, *prev = NULL, *next = NULL;
	int ret = tell(vm->out, op);

	if (ret)
		return ret;
	if (op->remap.prev) {
		prev = kzalloc_obj(*prev);
		if (!prev)
			return -ENOMEM;
	}
	if (op->remap.next) {
		next = kzalloc_obj(*next);
		if (!next) {
			kfree(prev);
			return -ENOMEM;
		}
	}
	drm_gpuva_remap(prev, next, &op->remap);
	if (prev)
		drm_gpuva_link(prev, va->vm_bo);
	if (next)
		drm_gpuva_link(next, va->vm_bo);
	drm_gpuva_unlink(va);
	kfree(va);
	return 0;
}

static int step_unmap(struct drm_gpuva_op *op, void *priv)
{
	struct fpg *vm = priv;
	struct drm_gpuva *va = op->unmap.va;
	int ret = tell(vm->out, op);

	if (ret)
		return ret;
	drm_gpuva_unlink(va);
	drm_gpuva_unmap(&op->unmap);
	kfree(va);
	return 0;
}

static void vm_free(struct drm_gpuvm *base)
{
	kfree(to_fpg(base));
}

static const struct drm_gpuvm_ops fpg_ops = {
	.vm_free = vm_free,
	.sm_step_map = step_map,
	.sm_step_remap = step_remap,
	.sm_step_unmap = step_unmap,
};

/* ---- requests --------------------------------------------------------------------------------- */

static void lock(struct fpg *vm)
{
	dma_resv_lock(drm_gpuvm_resv(&vm->base), NULL);
}

static void unlock(struct fpg *vm)
{
	dma_resv_unlock(drm_gpuvm_resv(&vm->base));
}

static int map_locked(struct fpg *vm, const struct drm_gpuvm_map_req *req)
{
	struct drm_gem_object *obj = req->map.gem.obj;
	int ret;

	vm->vm_bo = NULL;
	if (obj) {
		vm->vm_bo = drm_gpuvm_bo_obtain_locked(&vm->base, obj);
		if (IS_ERR(vm->vm_bo))
			return PTR_ERR(vm->vm_bo);
	}
	ret = drm_gpuvm_sm_map(&vm->base, vm, req);
	drm_gpuvm_bo_put(vm->vm_bo);
	return ret;
}

/* tells the operations of a list, applies them if asked to, and frees it */
static int finish(struct fpg *vm, struct drm_gpuva_ops *ops, bool apply, struct fpg_list *out)
{
	struct drm_gpuva_op *op;
	int ret = 0;

	if (IS_ERR(ops))
		return PTR_ERR(ops);
	vm->out = out;
	drm_gpuva_for_each_op(op, ops) {
		if (!apply)
			ret = tell(out, op);
		else if (op->op == DRM_GPUVA_OP_MAP)
			ret = step_map(op, vm);
		else if (op->op == DRM_GPUVA_OP_REMAP)
			ret = step_remap(op, vm);
		else
			ret = step_unmap(op, vm);
		if (ret)
			break;
	}
	vm->out = NULL;
	drm_gpuva_ops_free(&vm->base, ops);
	return ret;
}

static struct drm_gpuvm_map_req map_req(struct fpg *vm, const struct fpg_request *request)
{
	return (struct drm_gpuvm_map_req){
		.map.va.addr = request->start,
		.map.va.range = request->range,
		.map.gem.obj = object_of(vm, request->object),
		.map.gem.offset = request->offset,
	};
}

int fpg_map(struct fpg *vm, const struct fpg_request *request, bool apply, struct fpg_list *out)
{
	struct drm_gpuvm_map_req req = map_req(vm, request);
	int ret;

	lock(vm);
	if (apply) {
		vm->out = out;
		ret = map_locked(vm, &req);
		vm->out = NULL;
	} else {
		ret = finish(vm, drm_gpuvm_sm_map_ops_create(&vm->base, &req), false, out);
	}
	unlock(vm);
	return ret;
}

int fpg_unmap(struct fpg *vm, u64 start, u64 range, bool apply, struct fpg_list *out)
{
	struct drm_gpuva_ops *ops;
	int ret;

	lock(vm);
	if (apply) {
		vm->out = out;
		ret = drm_gpuvm_sm_unmap(&vm->base, vm, start, range);
		vm->out = NULL;
	} else {
		ops = drm_gpuvm_sm_unmap_ops_create(&vm->base, start, range);
		ret = finish(vm, ops, false, out);
	}
	unlock(vm);
	return ret;
}

int fpg_unmap_object(struct fpg *vm, u64 object, struct fpg_list *out)
{
	struct drm_gpuvm_bo *vm_bo;
	int ret = 0;

	lock(vm);
	vm_bo = drm_gpuvm_bo_find(&vm->base, object_of(vm, object));
	if (vm_bo) {
		ret = finish(vm, drm_gpuvm_bo_unmap_ops_create(vm_bo), true, out);
		drm_gpuvm_bo_put(vm_bo);
	}
	unlock(vm);
	return ret;
}

int fpg_madvise(struct fpg *vm, u64 start, u64 range, struct fpg_list *out)
{
	struct drm_gpuvm_map_req req = { .map.va.addr = start, .map.va.range = range };
	int ret;

	lock(vm);
	/* only mappings without an object are split, and made */
	vm->vm_bo = NULL;
	ret = finish(vm, drm_gpuvm_madvise_ops_create(&vm->base, &req), true, out);
	unlock(vm);
	return ret;
}

int fpg_prefetch(struct fpg *vm, u64 start, u64 range, struct fpg_list *out)
{
	int ret;

	/* the function walks over whatever it is given; a driver checks first */
	if (!drm_gpuvm_range_valid(&vm->base, start, range))
		return -EINVAL;
	lock(vm);
	ret = finish(vm, drm_gpuvm_prefetch_ops_create(&vm->base, start, range), false, out);
	unlock(vm);
	return ret;
}

int fpg_table(struct fpg *vm, u64 start, u64 end, struct fpg_list *out)
{
	struct drm_gpuva *va;
	int ret = 0;

	drm_gpuvm_for_each_va_range(va, &vm->base, start, end) {
		struct fpg_op op = { .kind = FPG_MAP };

		if (va == &vm->base.kernel_alloc_node)
			continue;
		op.map = describe_va(va);
		ret = put(out, &op);
		if (ret)
			break;
	}
	return ret;
}

bool fpg_has_mappings(struct fpg *vm, u64 object)
{
	struct drm_gpuvm_bo *vm_bo;
	bool has = false;

	lock(vm);
	vm_bo = drm_gpuvm_bo_find(&vm->base, object_of(vm, object));
	if (vm_bo) {
		has = !list_empty(&vm_bo->list.gpuva);
		drm_gpuvm_bo_put(vm_bo);
	}
	unlock(vm);
	return has;
}

int fpg_bench(struct fpg *vm, const struct fpg_request *requests, u64 count)
{
	int ret = 0;
	u64 i;

	lock(vm);
	for (i = 0; i < count && !ret; i++) {
		const struct fpg_request *r = &requests[i];
		struct drm_gpuvm_map_req req = map_req(vm, r);

		if (r->object)
			ret = map_locked(vm, &req);
		else
			ret = drm_gpuvm_sm_unmap(&vm->base, vm, r->start, r->range);
	}
	unlock(vm);
	return ret;
}

u64 fpg_now_ns(void)
{
	return ktime_get_ns();
}

void fpg_yield(void)
{
	cond_resched();
}

/* ---- VA spaces -------------------------------------------------------------------------------- */

static void object_free(struct drm_gem_object *obj)
{
	drm_gem_object_release(obj);
	kfree(container_of(obj, struct fpg_object, base));
}

static const struct drm_gem_object_funcs object_funcs = {
	.free = object_free,
};

static struct drm_gem_object *object_new(struct drm_gem_object *resv, u64 id)
{
	struct fpg_object *new = kzalloc_obj(*new);

	if (!new)
		return NULL;
	new->id = id;
	new->base.funcs = &object_funcs;
	new->base.resv = resv->resv;
	drm_gem_private_object_init(fpg_drm, &new->base, PAGE_SIZE);
	return &new->base;
}

static void objects_put(struct drm_gem_object **objects, u64 count)
{
	while (count--)
		drm_gem_object_put(objects[count]);
}

struct fpg *fpg_create(u64 start, u64 range, u64 hole, u64 hole_range, u64 objects)
{
	struct drm_gem_object *resv = drm_gpuvm_resv_object_alloc(fpg_drm);
	struct fpg *vm = kzalloc_flex(*vm, objects, objects);
	u64 i;

	if (!resv || !vm)
		goto fail;
	vm->count = objects;
	for (i = 0; i < objects; i++) {
		vm->objects[i] = object_new(resv, i + 1);
		if (!vm->objects[i]) {
			objects_put(vm->objects, i);
			goto fail;
		}
	}
	drm_gpuvm_init(&vm->base, "fencepost", 0, fpg_drm, resv, start, range, hole, hole_range,
		       &fpg_ops);
	drm_gem_object_put(resv);
	return vm;
fail:
	if (resv)
		drm_gem_object_put(resv);
	kfree(vm);
	return NULL;
}

void fpg_destroy(struct fpg *vm)
{
	struct drm_gem_object *resv = drm_gpuvm_resv_obj(&vm->base);
	struct drm_gpuva *va, *next;

	/* the objects' reservation */
	drm_gem_object_get(resv);
	lock(vm);
	drm_gpuvm_for_each_va_safe(va, next, &vm->base) {
		if (va == &vm->base.kernel_alloc_node)
			continue;
		drm_gpuva_unlink(va);
		drm_gpuva_remove(va);
		kfree(va);
	}
	unlock(vm);
	objects_put(vm->objects, vm->count);
	drm_gpuvm_put(&vm->base);
	drm_gem_object_put(resv);
}

/* core's facade names them; the manager has no fence path */

bool fp_fence_path_begin(void)
{
	return dma_fence_begin_signalling();
}

void fp_fence_path_end(bool cookie)
{
	dma_fence_end_signalling(cookie);
}

/* ---- the module's file: a command is written, its answer is read ------------------------------ */

struct answer {
	void *kept;
	const char *bytes;
	size_t size;
};

static int file_open(struct inode *inode, struct file *file)
{
	file->private_data = kzalloc_obj(struct answer);
	return file->private_data ? 0 : -ENOMEM;
}

static ssize_t file_write(struct file *file, const char __user *from, size_t len, loff_t *pos)
{
	struct answer *answer = file->private_data;
	char text[128];
	int ret;

	if (len > sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, len))
		return -EFAULT;
	if (answer->kept)
		fpg_rust_free(answer->kept);
	*answer = (struct answer){};
	ret = fpg_rust_command(text, len, &answer->kept, &answer->bytes, &answer->size);
	return ret ? ret : len;
}

static ssize_t file_read(struct file *file, char __user *to, size_t len, loff_t *pos)
{
	struct answer *answer = file->private_data;

	return simple_read_from_buffer(to, len, pos, answer->bytes, answer->size);
}

static int file_release(struct inode *inode, struct file *file)
{
	struct answer *answer = file->private_data;

	if (answer->kept)
		fpg_rust_free(answer->kept);
	kfree(answer);
	return 0;
}

static const struct file_operations file_ops = {
	.owner = THIS_MODULE,
	.open = file_open,
	.write = file_write,
	.read = file_read,
	.release = file_release,
	.llseek = noop_llseek,
};

int fpg_start(void)
{
	fpg_parent = faux_device_create("fencepost_gpuva", NULL, NULL);
	if (!fpg_parent)
		return -ENODEV;
	fpg_drm = drm_dev_alloc(&fpg_driver, &fpg_parent->dev);
	if (IS_ERR(fpg_drm)) {
		faux_device_destroy(fpg_parent);
		return PTR_ERR(fpg_drm);
	}
	fpg_folder = debugfs_create_dir("fencepost_gpuva", NULL);
	debugfs_create_file("run", 0600, fpg_folder, NULL, &file_ops);
	return 0;
}

void fpg_stop(void)
{
	debugfs_remove_recursive(fpg_folder);
	drm_dev_put(fpg_drm);
	faux_device_destroy(fpg_parent);
}
