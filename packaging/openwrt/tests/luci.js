// SPDX-License-Identifier: GPL-2.0

/*
 * As much of LuCI as the page uses, for page.py: E(), _(), format(), and the classes view, rpc, poll and dom. The
 * methods of rpcd are those of our ucode file, which is JavaScript as well but for its import and some functions.
 * As in LuCI, a string that is all of the children is HTML; strings in arrays are text.
 */
'use strict';

String.prototype.format = function(...args) {
	return this.replace(/%[sd%]/g, what => what == '%%' ? '%' : String(args.shift()));
};

const _ = text => text;

const dom = {
	append(node, children) {
		if (Array.isArray(children))
			children.forEach(child => {
				if (child instanceof Node)
					node.appendChild(child);
				else if (child !== null && child !== undefined)
					node.appendChild(document.createTextNode('' + child));
			});
		else if (children instanceof Node)
			node.appendChild(children);
		else if (children !== null && children !== undefined)
			node.innerHTML = '' + children;
		return node;
	},

	content(node, children) {
		node.replaceChildren();
		return this.append(node, children);
	}
};

/* Of an empty array it makes a fragment. */
function E(what, attrs, children) {
	const node = what.length ? document.createElement(what) : document.createDocumentFragment();

	if (Array.isArray(attrs))
		return dom.append(node, attrs);
	for (const key in attrs)
		if (attrs[key] !== null && attrs[key] !== undefined)
			node.setAttribute(key, attrs[key]);
	return dom.append(node, children);
}

const view = { extend: what => what };

const polled = [];
const poll = { add: (what, seconds) => polled.push({ what, seconds }) };

/* What ucode has and JavaScript has not. */
const ucode = {
	json: JSON.parse,
	length: x => x === null ? null : x.length,
	values: Object.values,
	slice: (list, from, to) => list.slice(from, to),
	sort: (list, order) => list.sort(order),

	/* page.py runs the command. */
	popen(command) {
		const request = new XMLHttpRequest();

		request.open('POST', '/popen', false);
		request.send(command);

		const { text, status } = JSON.parse(request.responseText);
		let at = 0;

		return {
			read(what) {
				const end = what == 'line' ? text.indexOf('\n', at) : -1;
				const part = text.slice(at, end < 0 ? undefined : end + 1);

				at += part.length;
				return part;
			},
			close: () => status
		};
	}
};

const rpcd = fetch('/ucode').then(answer => answer.text()).then(text => {
	const body = text.replace(/^import \{ popen \} from 'fs';$/m, '');

	return new Function(...Object.keys(ucode), body)(...Object.values(ucode));
});

const rpc = {
	declare(options) {
		/* A message is a copy. */
		return async () => window.deaf ? options.expect[''] :
			JSON.parse(JSON.stringify((await rpcd)[options.object][options.method].call({})));
	}
};

window.pollNow = () => Promise.all(polled.map(p => p.what()));
window.pollSeconds = () => polled.map(p => p.seconds);

fetch('/luci-static/resources/view/status/nft_offload.js').then(answer => answer.text()).then(async text => {
	const page = new Function('view', 'poll', 'rpc', 'dom', 'E', '_', text)(view, poll, rpc, dom, E, _);

	dom.content(document.querySelector('#view'), page.render(await page.load()));
});
