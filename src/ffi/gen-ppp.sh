#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# gen-ppp.sh ppp_generic.c: what struct ppp and struct channel look like, which the kernel has in no header. Nothing without the source.
echo '/* SPDX-License-Identifier: GPL-2.0 */'
if [ -r "$1" ]; then
	echo '#define NFO_PPP 1'
	sed -n -e '/^#define NUM_NP/p' -e '/^struct ppp_file {/,/^};/p' -e '/^struct ppp {/,/^};/p' \
		-e '/^struct channel {/,/^};/p' "$1"
fi
