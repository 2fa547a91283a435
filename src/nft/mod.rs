// SPDX-License-Identifier: GPL-2.0

//! What nf_tables calls: the flowtable type and the expression `flow_offload`.

pub(crate) mod expr;
pub(crate) mod flowtable_type;
