// SPDX-License-Identifier: GPL-2.0

// What the program nft-offload says, for the page view/status/nft_offload.js. No method takes an argument, and
// none waits: rpcd answers one request at a time.

'use strict';

import { popen } from 'fs';

// Flows that are looked at. On a router with more, hosts are a sample.
const MOST_FLOWS = 20000;
// Hosts that the page chooses from.
const MOST_HOSTS = 100;

// The program's JSON, or its exit status: 3 without the module, 127 without the program.
function ask(args) {
	let pipe = popen('nft-offload -j ' + args + ' 2>/dev/null', 'r');

	if (!pipe)
		return { error: 127 };

	let text = pipe.read('all');
	let status = pipe.close();

	if (status != 0)
		return { error: status };

	try {
		return { result: json(text) };
	}
	catch (e) {
		return { error: 6 };
	}
}

// Adds a flow to its host: the one that has opened the connection. If that has come through a port
// forwarding, it is the one that it has been forwarded to.
function add(hosts, flow) {
	let inbound = flow.dnat && !flow.snat;
	let addr = inbound ? flow.reply.src : flow.original.src;
	let up = inbound ? flow.reply : flow.original;
	let down = inbound ? flow.original : flow.reply;
	let host = hosts[addr];

	if (!host) {
		host = { addr: addr, flows: 0, software: 0, partial: 0, hardware: 0, up: 0, down: 0, bytes: 0 };
		hosts[addr] = host;
	}
	host.flows = host.flows + 1;
	host[flow.tier] = (host[flow.tier] || 0) + 1;
	host.up = host.up + (up.bytes || 0);
	host.down = host.down + (down.bytes || 0);
	// Without the flag counter only the sum of both directions is known.
	host.bytes = host.bytes + ((up.bytes || 0) + (down.bytes || 0) || flow.fast_bytes || 0);
}

const methods = {
	status: {
		call: function() {
			return ask('metrics');
		}
	},

	reasons: {
		call: function() {
			return ask('reasons');
		}
	},

	hosts: {
		call: function() {
			let pipe = popen('nft-offload flows --jsonl 2>/dev/null', 'r');
			let hosts = {};
			let flows = 0;

			if (!pipe)
				return { error: 127 };

			while (flows < MOST_FLOWS) {
				let line = pipe.read('line');

				if (!length(line))
					break;
				try {
					add(hosts, json(line));
				}
				catch (e) {
					break;
				}
				flows = flows + 1;
			}

			let status = pipe.close();

			if (status != 0 && flows == 0)
				return { error: status };

			let list = sort(values(hosts), function(a, b) {
				return b.bytes - a.bytes;
			});

			return {
				result: {
					flows: flows,
					sample: flows == MOST_FLOWS,
					hosts: slice(list, 0, MOST_HOSTS)
				}
			};
		}
	}
};

return { 'luci.nft_offload': methods };
