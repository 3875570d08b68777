// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Bugs on purpose, to see that each is reported as what it is: cargo xtask plants. Only in a module
 * that was built with FENCEPOST_PLANT=y, and only the one that the parameter names.
 */
#include <linux/atomic.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "shim.h"

static char *plant = "";
module_param(plant, charp, 0444);
MODULE_PARM_DESC(plant, "bug: use-after-free, lock-inversion, leak, fence-allocation or null");

static DEFINE_MUTEX(fp_first);
static DEFINE_MUTEX(fp_second);
static atomic_t fp_calls = ATOMIC_INIT(0);

static noinline void use_after_free(void)
{
	char *gone = kzalloc(64, GFP_KERNEL);

	if (!gone)
		return;
	kfree(gone);
	OPTIMIZER_HIDE_VAR(gone);
	(void)READ_ONCE(gone[8]);
}

/* By turns: never at the same time, so only lockdep can tell. */
static noinline void lock_inversion(void)
{
	bool turned = atomic_inc_return(&fp_calls) & 1;

	mutex_lock(turned ? &fp_second : &fp_first);
	mutex_lock(turned ? &fp_first : &fp_second);
	mutex_unlock(turned ? &fp_first : &fp_second);
	mutex_unlock(turned ? &fp_second : &fp_first);
}

static noinline void leak(void)
{
	void *lost = kmalloc(512, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(lost);
}

static noinline void fence_allocation(void)
{
	void *p = kmalloc(64, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
	kfree(p);
}

static noinline void null(void)
{
	char *nothing = NULL;

	OPTIMIZER_HIDE_VAR(nothing);
	WRITE_ONCE(*nothing, 1);
}

void fp_planted(enum fp_place place)
{
	static const struct {
		const char *name;
		enum fp_place place;
		void (*bug)(void);
	} bugs[] = {
		{ "use-after-free", FP_IN_CALL, use_after_free },
		{ "lock-inversion", FP_IN_CALL, lock_inversion },
		{ "leak", FP_IN_CALL, leak },
		{ "fence-allocation", FP_IN_FENCE_PATH, fence_allocation },
		{ "null", FP_IN_CALL, null },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(bugs); i++)
		if (bugs[i].place == place && !strcmp(bugs[i].name, plant))
			bugs[i].bug();
}
