// Filter and sort. Without this file the pages are whole, in the order of families and systems.
'use strict';

const body = table => table.tBodies[0];
const key = (row, i) => {
  const cell = row.cells[i], data = cell.querySelector('data');
  return cell.dataset.sort ?? (data ? data.value : cell.textContent.trim());
};
// Numbers by size, then text; what is missing or NaN comes last in both directions.
function compare(a, b, sign) {
  const [x, y] = [a, b].map(v => v === '' || v === 'none' || v === 'nan' ? null : isNaN(v) ? v : Number(v));
  if (x === null || y === null) return (x === null) - (y === null);
  return sign * (typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y)));
}
function sort(table, i, sign) {
  const rows = [...body(table).rows].map(row => [key(row, i), row]);
  rows.sort(([a], [b]) => compare(a, b, sign));
  body(table).append(...rows.map(([, row]) => row));
  [...table.tHead.rows[0].cells].forEach((th, k) =>
    k === i ? th.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending') : th.removeAttribute('aria-sort'));
}
for (const table of document.querySelectorAll('table.sortable'))
  [...table.tHead.rows[0].cells].forEach((th, i) => {
    if ('fixed' in th.dataset) return;
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...th.childNodes);
    th.append(button);
    button.onclick = () => sort(table, i, th.getAttribute('aria-sort') === 'ascending' ? -1 : 1);
  });

// A link into something folded opens it.
const unfold = () => document.getElementById(location.hash.slice(1))?.querySelector('details')?.setAttribute('open', '');
addEventListener('hashchange', unfold);
unfold();

const form = document.querySelector('.toolbar');
if (form) {
  const table = document.querySelector('table.claims'), nothing = document.querySelector('.nothing');
  const { text, family, order } = form.elements, boxes = [...form.querySelectorAll('[name=verdict]')];
  const words = new Map([...body(table).rows].map(row => [row, row.textContent.toLowerCase()]));
  const show = () => {
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdicts = boxes.filter(b => b.checked).map(b => b.value);
    let count = 0;
    for (const [row, said] of words) {
      row.hidden = !(verdicts.includes(row.dataset.verdict) && (!family.value || row.dataset.family === family.value)
        && wanted.every(w => said.includes(w)));
      count += !row.hidden;
    }
    form.querySelector('output').value = `${count} of ${words.size}`;
    nothing.hidden = count > 0;
  };
  [...table.tHead.rows[0].cells].forEach((th, i) => 'fixed' in th.dataset || order.add(new Option(th.textContent, i)));
  order.value = 2;
  order.onchange = () => sort(table, Number(order.value), 1);
  form.oninput = show;
  form.onsubmit = event => event.preventDefault();
  form.onreset = () => setTimeout(show);
  nothing.querySelector('button').onclick = () => form.reset();
  for (const link of document.querySelectorAll('a[data-family], a[data-verdict]'))
    link.onclick = () => {
      text.value = '';
      family.value = link.dataset.family ?? '';
      boxes.forEach(b => { b.checked = !link.dataset.verdict || b.value === link.dataset.verdict; });
      show();
    };
  form.hidden = false;
  show();
}
