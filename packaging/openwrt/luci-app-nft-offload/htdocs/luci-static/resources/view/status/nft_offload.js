// SPDX-License-Identifier: GPL-2.0

'use strict';
'require view';
'require poll';
'require rpc';
'require dom';

/*
 * How much of the traffic flowtables forward, for which hosts, and why not the rest. Rates are differences
 * between two answers: rpcd is not kept waiting.
 *
 * Names come from rulesets, drivers and the network. E() takes a string as HTML, and an array as nodes and
 * text: all children here are arrays.
 */

const SECONDS = 5;
const MOST = 10;

const callStatus = rpc.declare({
	object: 'luci.nft_offload',
	method: 'status',
	expect: { '': {} }
});

const callHosts = rpc.declare({
	object: 'luci.nft_offload',
	method: 'hosts',
	expect: { '': {} }
});

const callReasons = rpc.declare({
	object: 'luci.nft_offload',
	method: 'reasons',
	expect: { '': {} }
});

/* The sentence for an exit status of nft-offload. */
function sentence(error) {
	switch (error) {
	case 3:
		return _('The module nft_offload is not loaded.');
	case 4:
		return _('rpcd may not ask the module.');
	case 127:
		return _('The program nft-offload is not installed.');
	case undefined:
		return _('rpcd does not answer.');
	default:
		return _('nft-offload has failed with status %d.').format(error);
	}
}

/* A number with three digits that count, and its unit. */
function amount(n, unit) {
	const prefixes = [ '', 'k', 'M', 'G', 'T', 'P' ];
	let at = 0;

	while (n >= 999.5 && at + 1 < prefixes.length) {
		n /= 1000;
		at++;
	}

	const digits = (at == 0 || n >= 99.95) ? 0 : (n >= 9.995) ? 1 : 2;

	return n.toFixed(digits) + '\u00a0' + prefixes[at] + unit;
}

function bar(part, whole, text) {
	const percent = whole > 0 ? Math.min(100, 100 * part / whole) : 0;
	const title = whole > 0 ? percent.toFixed(percent > 99 && percent < 100 ? 2 : 1) + ' %' : '-';

	return E('div', { 'class': 'cbi-progressbar', 'title': text ? `${title} (${text})` : title }, [
		E('div', { 'style': `width:${percent.toFixed(2)}%` }, [])
	]);
}

function table(id, titles) {
	return E('table', { 'class': 'table', 'id': id }, [
		E('tr', { 'class': 'tr table-titles' }, titles.map(title => E('th', { 'class': 'th' }, [ title ])))
	]);
}

/* Replaces the rows. A cell is text, or a node. */
function fill(node, rows, placeholder) {
	const titles = Array.from(node.querySelectorAll('.table-titles > .th'));

	node.querySelectorAll('.tr:not(.table-titles)').forEach(row => row.remove());
	rows.forEach((cells, n) => {
		node.appendChild(E('tr', { 'class': `tr cbi-rowstyle-${n % 2 + 1}` }, cells.map((cell, i) =>
			E('td', { 'class': 'td', 'data-title': titles[i].textContent }, [ cell ]))));
	});
	if (rows.length == 0)
		node.appendChild(E('tr', { 'class': 'tr placeholder' }, [
			E('td', { 'class': 'td', 'colspan': titles.length }, [ E('em', {}, [ placeholder ]) ])
		]));
}

function sum(list, get) {
	return (list || []).reduce((all, x) => all + get(x), 0);
}

/* The numbers of a status that rates are made of. */
function totals(status) {
	const slow = {};

	(status.counters || []).forEach(c => {
		if (c.group == 'skip' || c.group == 'miss')
			slow[`${c.group}.${c.name}`] = c.count;
	});

	return {
		slow: slow,
		missed: sum((status.counters || []).filter(c => c.group == 'miss'), c => c.count),
		fast: sum((status.counters || []).filter(c => c.group == 'counter' && c.name == 'packets_fast'), c => c.count),
		hardware: sum(status.hardware, ft => ft.packets),
		hardware_bytes: sum(status.hardware, ft => ft.bytes),
		bytes: sum(status.flowtables, ft => ft.bytes),
		tables: Object.fromEntries(status.flowtables.map(ft => [ name(ft), ft.bytes ]))
	};
}

function name(ft) {
	return [ ft.family, ft.table, ft.flowtable ].filter(word => word).join(' ');
}

/* Per second since an earlier answer; none if there is none, or counters have begun anew. */
function rate(now, before, seconds) {
	if (before === undefined || before === null || now < before || !(seconds > 0))
		return null;

	return (now - before) / seconds;
}

function bits(bytes_per_second) {
	return bytes_per_second === null ? '-' : amount(bytes_per_second * 8, 'bit/s');
}

return view.extend({
	load() {
		return Promise.all([ callStatus(), callHosts(), callReasons() ]);
	},

	/* What is as it is at once. */
	updateStatus(answer) {
		const status = answer.result;

		dom.content(this.message, status ? [] : [
			E('div', { 'class': 'alert-message warning' }, [ sentence(answer.error) ])
		]);
		if (!status)
			return;

		const now = { time: Date.now(), ...totals(status) };
		const before = this.before || {};
		const seconds = (now.time - before.time) / 1000;
		const since = get => rate(get(now), this.before ? get(before) : null, seconds);
		const fast = since(t => t.fast + t.hardware);
		const slow = since(t => t.missed);
		const flows = sum(status.flowtables, ft => ft.flows);
		const whole = sum(status.hardware, ft => ft.flows);
		const partial = sum(status.hardware, ft => ft.flows_partial);
		const waiting = sum(status.flowtables, ft => ft.offload ? ft.waiting : 0);
		const all = now.fast + now.hardware + now.missed;

		fill(this.overview, [
			[ _('Module'), `nft_offload ${status.module.version}` ],
			[ _('Packets on the fast path, at present'), fast === null || slow === null ? '-' :
				bar(fast, fast + slow, _('%s of %s').format(amount(fast, 'pkt/s'), amount(fast + slow, 'pkt/s'))) ],
			[ _('Packets on the fast path, in all'), status.counters ?
				bar(now.fast + now.hardware, all, _('%s of %s').format(amount(now.fast + now.hardware, 'pkt'), amount(all, 'pkt'))) :
				_('the counters are for root of the machine') ],
			[ _('Connections that are offloaded'), status.connections === null ? '-' :
				bar(flows, status.connections, _('%d of %d').format(flows, status.connections)) ],
			[ _('Flows in software'), bar(flows - whole - partial, flows, String(Math.max(0, flows - whole - partial))) ],
			[ _('Flows with one direction in hardware'), bar(partial, flows, String(partial)) ],
			[ _('Flows in hardware'), bar(whole, flows, waiting ? _('%d, and %d wait for a place').format(whole, waiting) : String(whole)) ],
			[ _('Software forwards'), bits(since(t => t.bytes)) ],
			[ _('Hardware forwards'), bits(since(t => t.hardware_bytes)) ]
		]);

		fill(this.flowtables, status.flowtables.map(ft => [
			name(ft),
			[ 'offload', 'counter' ].filter(flag => ft[flag]).join(', ') || '-',
			String(ft.flows),
			amount(ft.packets, 'pkt'),
			amount(ft.bytes, 'B'),
			bits(since(t => t.tables[name(ft)])),
			/^yes/.test(ft.volatile) ? ft.volatile : _('no')
		]), _('There is no flowtable.'));

		fill(this.hardware, (status.hardware || []).map(ft => [
			name(ft),
			ft.devices.filter(device => device.engine != 'software')
				.map(device => `${device.engine} ${device.driver}`.trim())
				.filter((engine, at, list) => list.indexOf(engine) == at).join(', ') || _('none'),
			ft.limit ? bar(ft.rules, ft.limit, _('%d of %d').format(ft.rules, ft.limit)) : _('%d, and all have fitted').format(ft.rules),
			Object.entries(ft.declined).filter(([ , n ]) => n).sort((a, b) => b[1] - a[1]).slice(0, 3)
				.map(([ reason, n ]) => `${reason} ${n}`).join(', ') || '-',
			ft.driver_said || '-'
		]), _('No flowtable has the flag offload.'));

		const rows = Object.entries(now.slow).filter(([ , n ]) => n > 0).map(([ reason, n ]) => ({
			reason: reason,
			count: n,
			rate: since(t => t.slow[reason])
		}));

		rows.sort((a, b) => (b.rate || 0) - (a.rate || 0) || b.count - a.count);
		fill(this.reasons, rows.slice(0, MOST).map(row => {
			const known = this.known[row.reason] || {};

			return [
				row.reason,
				row.rate === null ? '-' : amount(row.rate, 'pkt/s'),
				amount(row.count, 'pkt'),
				known.meaning || '-',
				known.advice || '-'
			];
		}), status.counters ? _('No packet has taken the slow path.') : _('The counters are for root of the machine.'));

		this.before = now;
	},

	updateHosts(answer) {
		const result = answer.result;

		if (!result)
			return fill(this.hosts, [], sentence(answer.error));

		const now = { time: Date.now(), hosts: {} };
		const before = this.hostsBefore || { hosts: {} };
		const seconds = (now.time - before.time) / 1000;

		result.hosts.forEach(host => now.hosts[host.addr] = host);

		const rows = result.hosts.map(host => {
			const old = before.hosts[host.addr] || {};
			/* With its flows that end, their bytes go. */
			const since = key => rate(host[key], old[key], seconds);

			return { host: host, up: since('up'), down: since('down'), both: since('bytes') };
		});

		rows.sort((a, b) => (b.both || 0) - (a.both || 0) || b.host.bytes - a.host.bytes);
		fill(this.hosts, rows.slice(0, MOST).map(row => [
			row.host.addr,
			bits(row.both),
			bits(row.down),
			bits(row.up),
			amount(row.host.bytes, 'B'),
			String(row.host.flows),
			[ [ 'software', _('software') ], [ 'partial', _('half in hardware') ], [ 'hardware', _('hardware') ] ]
				.filter(([ tier ]) => row.host[tier])
				.map(([ tier, text ]) => `${row.host[tier]} ${text}`).join(', ')
		]), _('There are no flows.'));

		dom.content(this.sample, result.sample ? [ _('Of the first %d flows only.').format(result.flows) ] : []);
		this.hostsBefore = now;
	},

	render([ status, hosts, reasons ]) {
		this.known = {};
		(reasons.result || []).forEach(r => this.known[`${r.group}.${r.name}`] = r);

		this.message = E('div', {}, []);
		this.overview = table('nft_offload_overview', [ '', '' ]);
		this.overview.firstElementChild.style.display = 'none';
		this.flowtables = table('nft_offload_flowtables', [ _('Flowtable'), _('Flags'), _('Flows'), _('Packets'), _('Bytes'),
			_('Rate'), _('Rules that change without a commit') ]);
		this.hardware = table('nft_offload_hardware', [ _('Flowtable'), _('Engines'), _('Rules'), _('Declined'), _('The driver said') ]);
		this.hosts = table('nft_offload_hosts', [ _('Host'), _('Rate'), _('Down'), _('Up'), _('Bytes'), _('Flows'), _('Forwarded by') ]);
		this.sample = E('div', { 'class': 'cbi-section-descr' }, []);
		this.reasons = table('nft_offload_reasons', [ _('Reason'), _('At present'), _('In all'), _('Meaning'), _('What to do') ]);

		this.updateStatus(status);
		this.updateHosts(hosts);

		poll.add(() => Promise.all([
			callStatus().then(answer => this.updateStatus(answer)),
			callHosts().then(answer => this.updateHosts(answer))
		]), SECONDS);

		return E([], [
			E('h2', {}, [ _('Flow Offload') ]),
			this.message,
			E('div', { 'class': 'cbi-section' }, [ this.overview ]),
			E('div', { 'class': 'cbi-section' }, [ E('h3', {}, [ _('Hosts') ]), this.sample, this.hosts ]),
			E('div', { 'class': 'cbi-section' }, [
				E('h3', {}, [ _('Why not: packets on the slow path') ]),
				this.reasons
			]),
			E('div', { 'class': 'cbi-section' }, [ E('h3', {}, [ _('Flowtables') ]), this.flowtables ]),
			E('div', { 'class': 'cbi-section' }, [ E('h3', {}, [ _('Hardware') ]), this.hardware ])
		]);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
