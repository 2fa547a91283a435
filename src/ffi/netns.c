// SPDX-License-Identifier: GPL-2.0
/* Network namespaces: where each keeps what belongs to it, and how that ends. */
#include <linux/sched/signal.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>

#include "helpers.h"

/* The kernel frees this when all parts of a namespace have ended; the Rust object goes with the
 * last flowtable, which may be later than nfo_net_exit().
 */
struct nfo_net {
	void			*netns;		/* in Rust, NULL at the end */
	wait_queue_head_t	walked;
	unsigned long		walking;
};

static unsigned int nfo_net_id;
static const struct nfo_netns_ops *nfo_netns_ops;

static struct nfo_net *nfo_net(const struct net *net)
{
	return net_generic(net, nfo_net_id);
}

/* NULL if the namespace is at its end. */
void *nfo_netns(const struct net *net)
{
	struct nfo_net *nn = nfo_net(net);

	return nn ? READ_ONCE(nn->netns) : NULL;
}

/* One walk over flows at a time, for who asks by netlink: to be had within a second, or not at all.
 * A flush has softirqs off for some time and again; it and the first part of a dump have generic
 * netlink's cb_lock.
 */
int nfo_walk_begin(const struct net *net)
{
	struct nfo_net *nn = nfo_net(net);
	long left;

	left = wait_event_killable_timeout(nn->walked, !test_and_set_bit_lock(0, &nn->walking), HZ);
	if (left < 0)
		return -EINTR;
	return left ? 0 : -EBUSY;
}

void nfo_walk_end(const struct net *net)
{
	struct nfo_net *nn = nfo_net(net);

	clear_bit_unlock(0, &nn->walking);
	smp_mb__after_atomic();
	wake_up(&nn->walked);
}

bool nfo_killed(void)
{
	return fatal_signal_pending(current);
}

static int __net_init nfo_net_init(struct net *net)
{
	struct nfo_net *nn = nfo_net(net);

	init_waitqueue_head(&nn->walked);
	nn->netns = nfo_netns_ops->make(net);
	return nn->netns ? 0 : -ENOMEM;
}

/* A grace period later comes the exit. */
static void __net_exit nfo_net_pre_exit(struct net *net)
{
	nfo_netns_ops->leave(nfo_net(net)->netns);
}

/* Before that of nf_tables, which ends the flowtables. */
static void __net_exit nfo_net_exit(struct net *net)
{
	struct nfo_net *nn = nfo_net(net);
	void *netns = nn->netns;

	WRITE_ONCE(nn->netns, NULL);
	nfo_netns_ops->put(netns);
}

static struct pernet_operations nfo_net_ops = {
	.init		= nfo_net_init,
	.pre_exit	= nfo_net_pre_exit,
	.exit		= nfo_net_exit,
	.id		= &nfo_net_id,
	.size		= sizeof(struct nfo_net),
};

static struct workqueue_struct *nfo_wq;

int nfo_netns_register(const struct nfo_netns_ops *ops)
{
	int err;

	nfo_netns_ops = ops;
	nfo_wq = alloc_workqueue("nft_offload", WQ_UNBOUND, 0);
	if (!nfo_wq)
		return -ENOMEM;
	err = register_pernet_subsys(&nfo_net_ops);
	if (err)
		destroy_workqueue(nfo_wq);
	return err;
}

/* Waits for flowtables that are about to end. */
void nfo_netns_unregister(void)
{
	unregister_pernet_subsys(&nfo_net_ops);
	rcu_barrier();
	destroy_workqueue(nfo_wq);
}

const void *nfo_queue(void)
{
	return nfo_wq;
}

static void nfo_worker_gc(struct work_struct *work)
{
	struct nfo_worker *worker = container_of(to_delayed_work(work), struct nfo_worker, gc);

	worker->run(worker->owner);
}

static void nfo_worker_end(struct work_struct *work)
{
	struct nfo_worker *worker = container_of(to_rcu_work(work), struct nfo_worker, end);

	worker->over(worker->owner);
}

void nfo_worker_init(struct nfo_worker *worker)
{
	INIT_DELAYED_WORK(&worker->gc, nfo_worker_gc);
	INIT_RCU_WORK(&worker->end, nfo_worker_end);
	worker->owner = NULL;
}

void nfo_worker_start(struct nfo_worker *worker, void *owner, void (*run)(void *owner),
		      void (*over)(void *owner), unsigned long delay)
{
	worker->run = run;
	worker->over = over;
	smp_store_release(&worker->owner, owner);
	nfo_worker_queue(worker, delay);
}

void nfo_worker_queue(struct nfo_worker *worker, unsigned long delay)
{
	queue_delayed_work(nfo_wq, &worker->gc, delay);
}

void nfo_worker_kick(struct nfo_worker *worker, unsigned long delay)
{
	if (smp_load_acquire(&worker->owner))
		mod_delayed_work(nfo_wq, &worker->gc, delay);
}

/* It does not run from here on. */
void nfo_worker_cancel(struct nfo_worker *worker)
{
	disable_delayed_work_sync(&worker->gc);
}

/* Has over() called, a grace period later. */
void nfo_worker_finish(struct nfo_worker *worker)
{
	queue_rcu_work(nfo_wq, &worker->end);
}
