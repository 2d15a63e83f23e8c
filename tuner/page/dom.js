// dom.js: building and updating elements.
//
// Every string becomes a Text node or an attribute, never markup: names of servers are
// untrusted. Inline styles are off (the content security policy forbids them); a number that
// CSS needs goes in as a custom property through the CSSOM.

const SVG = "http://www.w3.org/2000/svg";

/** An element: h("td", {class: "n", vars: {"--share": 0.3}, onclick: f}, "text", child). */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "vars") {
      for (const [key, number] of Object.entries(value)) node.style.setProperty(key, String(number));
    } else if (name.startsWith("on")) {
      node.addEventListener(name.slice(2), value);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  // What a condition left out: null, undefined or false.
  node.append(...children.flat(3).filter((child) => (child ?? false) !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

export function setText(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Make the children of `parent` mirror `items`, reusing the node of an unchanged item, so that
 * hover, selection and scroll survive an update. Focus follows the id of the focused element.
 *
 * keyOf(item) -> string, unique; signature(item) -> anything JSON that decides a rebuild;
 * build(item) -> Element
 */
export function mirror(parent, items, { keyOf, signature = (item) => item, build }) {
  const focused = document.activeElement?.id;
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  const fresh = items.map((item) => {
    const key = keyOf(item);
    const sign = JSON.stringify(signature(item));
    const node = old.get(key);
    if (node && node.mirrorSignature === sign) return node;
    const built = build(item);
    built.dataset.key = key;
    built.mirrorSignature = sign;
    return built;
  });
  const kept = new Set(fresh);
  for (const node of [...parent.children]) if (!kept.has(node)) node.remove();
  // Only what is new or moved is inserted: a node that is detached loses focus and scroll.
  let cursor = parent.firstElementChild;
  for (const node of fresh) {
    if (node === cursor) cursor = cursor.nextElementSibling;
    else parent.insertBefore(node, cursor);
  }
  if (focused && document.activeElement?.id !== focused) {
    byId(focused)?.focus({ preventScroll: true });
  }
}
