// SPDX-License-Identifier: GPL-2.0
/* Build-time proof that C and Rust agree about every layout that Rust looks into. */
#include <linux/build_bug.h>
#include <linux/stddef.h>
#include "bindings_helper.h"
#include "layout_asserts.h"

/* The room in struct nf_flowtable that nf_tables never touches holds our pointer. */
static_assert(sizeof_field(struct nf_flowtable, rhashtable) >= sizeof(void *));
static_assert(offsetof(struct nft_flowtable, data) % sizeof(void *) == 0);

/* Numbers that Rust has for itself. */
static_assert(RTF_PCPU == 0x40000000 && RTF_EXPIRES == 0x00400000);
