# SPDX-License-Identifier: GPL-2.0
#
# Verbs for people. The kernel build reads Kbuild; the work behind the verbs is in tools/lanes.

KDIR ?= /lib/modules/$(shell uname -r)/build
MO ?= $(CURDIR)/out/build-kdir
LANES := tools/lanes
DESTDIR ?=
export KVER FT T ARGS TIMEOUT ICOUNT

.PHONY: all modules modules_install install uninstall demo test test-all check-quick check-host check-uml check-stock check-arm64 check-vfio check-debug \
	bench profile vm uml fuzz fmt clippy doc rust-analyzer tool doctor clean distclean help

all: modules

## all                build nft_offload.ko for KDIR (default: the running kernel)
modules:
	@tools/build "$(KDIR)" "$(MO)" modules

## demo               the main job in an unmodified Debian kernel: start here
demo:
	@$(LANES)/run-lane stock -t 1800 selftests/demo.sh

## test               what proves the project, in under an hour: host tests, uml lane, stock lane. Without KVM the
##                      stock lane is emulated and runs the choice of cases in tools/lanes/quick
## test-all           the same with every case on every lane, KVM or not, and the debug kernels: some hours
test: export KSFT_QUICK ?= emulated
test:
	@$(LANES)/check host uml stock

test-all: export KSFT_QUICK :=
test-all: export TIMEOUT ?= 86400
test-all:
	@$(LANES)/check host uml stock debug lockdep

## check-quick        before each commit: formatting, clippy, host tests, three short selftests; under two minutes
check-quick:
	@$(LANES)/check-quick

## check-host         cargo test, loom, clippy, formatting, shellcheck
## check-uml          kselftests in User Mode Linux (fast)
## check-stock        kselftests in the unmodified Debian kernel
## check-arm64        kselftests in the unmodified Debian kernel for arm64, emulated (not part of test): the choice of
##                      tools/lanes/quick, T=name for one whole test, KSFT_QUICK= for all of them
## check-vfio         the native PPE engine against a PPE outside of the guest (not part of test)
## check-debug        kselftests on two debug kernels: KASAN and kmemleak, then lockdep
##                      T=name one test or some, T=kernel:name one of the kernel's own net selftests,
##                      ARGS='...' its arguments, FT=intree the kernel's C modules instead of ours
# Emulated, the whole of it would take hours.
check-arm64: export KSFT_QUICK ?= 1
check-host check-uml check-stock check-arm64 check-vfio: check-%:
	@$(LANES)/check $*

check-debug:
	@$(LANES)/check debug lockdep

## bench              instructions per packet on the ways that routers have, in-tree C and ours, as a table:
##                      docs/benchmarks.md. T='plain-plain ipv6' rows, ARGS='-m "classic intree ours fwd"' and more
##                      options of selftests/bench/matrix.sh
## profile            the same by function, with the misses of caches: docs/benchmarks.md. ARGS='-f 100000 -m "ours"'
##                    are options of selftests/bench/pktgen.sh
bench:
	@ICOUNT=1 $(LANES)/run-lane stock -t 14400 -- 'selftests/bench/matrix.sh $(subst ','\'',$(value ARGS) $(value T))'
profile:
	@ICOUNT=1 PROFILE=1 $(LANES)/run-lane stock -t 14400 -- 'selftests/bench/pktgen.sh -r 1 -n 1 -p 10000 -m "intree ours" $(subst ','\'',$(value ARGS))'

## vm CMD='...'       run a command in the stock guest with the module at hand; a shell without CMD
##                      ICOUNT=1: one CPU whose clock counts instructions, one a nanosecond
## uml CMD='...'      the same in User Mode Linux
vm:
	@$(LANES)/run-lane stock $(if $(value CMD),-- '$(subst ','\'',$(value CMD))')

uml:
	@$(LANES)/run-lane uml $(if $(value CMD),-- '$(subst ','\'',$(value CMD))')

## fuzz               fuzz every target for FUZZ_SECONDS (default 600)
fuzz:
	@$(LANES)/fuzz

## fmt                format all Rust
## clippy             the module with clippy, warnings denied
fmt:
	@$(LANES)/fmt

clippy:
	@$(LANES)/clippy

## doc                pages of the module and its crates, private items too, in out/target-doc/doc
## rust-analyzer      write rust-project.json, from which an editor knows module, crates and kernel
doc:
	@$(LANES)/doc

rust-analyzer:
	@$(LANES)/rust-analyzer

## tool               build nft-offload, the program for operators, with man page and completions: out/nft-offload,
##                      out/nft-offload.d. With any cargo: cargo build --release --locked -p nft-offload
tool:
	@tool=$$($(LANES)/build-tool) && $(LANES)/tool-files "$$tool"

## modules_install    install the module for KDIR and run depmod; builds it if need be
modules_install:
	@tools/build "$(KDIR)" "$(MO)" modules_install $(if $(DESTDIR),INSTALL_MOD_PATH="$(DESTDIR)")

## install            modules_install, and the modprobe.d file that has ours loaded before the in-tree modules
install: modules_install
	install -D -m 644 packaging/modprobe.d/nft-offload.conf "$(DESTDIR)/etc/modprobe.d/nft-offload.conf"

## uninstall          take both away again; says what other kernels still have
uninstall:
	@tools/uninstall "$(KDIR)" "$(DESTDIR)"

## doctor             check each prerequisite and say what to do
doctor:
	@tools/doctor

## clean              remove what was built here
## distclean          and the cache of kernels and roots in ~/.cache/nft-offload
clean:
	rm -rf out target src/nft_flow/fuzz/target

distclean: clean
	@$(LANES)/distclean

help:
	@sed -n 's/^## //p' Makefile
