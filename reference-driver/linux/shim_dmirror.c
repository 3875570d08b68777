// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The C side of the dmirror personality: character devices whose calls go to Rust. */
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include "shim.h"

struct fp_dmirror {
	struct cdev cdev;
	struct device device;
	void *ctx;
};

static int fp_dmirror_open(struct inode *inode, struct file *filp)
{
	struct fp_dmirror *node = container_of(inode->i_cdev, struct fp_dmirror, cdev);

	return fp_rust_dmirror_open(node->ctx, &filp->private_data);
}

static int fp_dmirror_release(struct inode *inode, struct file *filp)
{
	fp_rust_dmirror_release(filp->private_data);
	return 0;
}

static long fp_dmirror_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	return fp_rust_dmirror_ioctl(filp->private_data, cmd, arg);
}

/* Pages of the kernel's: a mapping that is not ordinary memory. */
static int fp_dmirror_mmap(struct file *filp, struct vm_area_struct *vma)
{
	unsigned long addr;
	struct page *page;
	int ret = 0;

	for (addr = vma->vm_start; addr < vma->vm_end && !ret; addr += PAGE_SIZE) {
		page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
		if (!page)
			return -ENOMEM;
		ret = vm_insert_page(vma, addr, page);
		put_page(page);
	}
	return ret;
}

static const struct file_operations fp_dmirror_fops = {
	.owner = THIS_MODULE,
	.open = fp_dmirror_open,
	.release = fp_dmirror_release,
	.unlocked_ioctl = fp_dmirror_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = fp_dmirror_mmap,
};

static void fp_dmirror_free(struct device *device)
{
	unregister_chrdev_region(device->devt, 1);
	kfree(container_of(device, struct fp_dmirror, device));
}

int fp_dmirror_register(u32 number, void *ctx, struct fp_dmirror **out)
{
	struct fp_dmirror *node = kzalloc(sizeof(*node), GFP_KERNEL);
	dev_t dev;
	int ret;

	if (!node)
		return -ENOMEM;
	ret = alloc_chrdev_region(&dev, 0, 1, "HMM_DMIRROR");
	if (ret) {
		kfree(node);
		return ret;
	}
	node->ctx = ctx;
	device_initialize(&node->device);
	node->device.devt = dev;
	node->device.release = fp_dmirror_free;
	cdev_init(&node->cdev, &fp_dmirror_fops);
	node->cdev.owner = THIS_MODULE;
	ret = dev_set_name(&node->device, "hmm_dmirror%u", number);
	if (!ret)
		ret = cdev_device_add(&node->cdev, &node->device);
	if (ret) {
		put_device(&node->device);
		return ret;
	}
	*out = node;
	return 0;
}

void fp_dmirror_unregister(struct fp_dmirror *node)
{
	cdev_device_del(&node->cdev, &node->device);
	put_device(&node->device);
}
