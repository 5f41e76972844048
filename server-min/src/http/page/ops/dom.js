// Small helpers for the document. Whatever comes from outside becomes text, never markup.

export const byId = (id) => document.getElementById(id);

/** A new element. `props` are its properties, `data` its data attributes, children elements or texts. */
export function el(name, { data = {}, attributes = {}, ...props } = {}, ...children) {
  const node = Object.assign(document.createElement(name), props);
  Object.assign(node.dataset, data);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Writes only what differs, so that a reader's selection and a screen reader's place stay. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows or hides; `text` becomes the element's. */
export function tell(node, text) {
  node.hidden = !text;
  write(node, text ?? '');
}

/** Keeps one child for each item, made once by `make(item)` and brought up to date by `update(node, item)`. */
export class Rows {
  constructor(parent, make, update) {
    Object.assign(this, { parent, make, update, nodes: new Map() });
  }

  show(items, keyOf) {
    const before = this.nodes;
    this.nodes = new Map();
    let at = this.parent.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      const node = before.get(key) ?? this.make(item);
      before.delete(key);
      this.nodes.set(key, node);
      this.update(node, item);
      if (node === at) at = at.nextElementSibling;
      else this.parent.insertBefore(node, at);
    }
    for (const node of before.values()) node.remove();
  }
}
