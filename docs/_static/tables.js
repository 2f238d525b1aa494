// On a narrow window each row of a table is shown as a paragraph of its own: each cell needs the heading of its column.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.docutils")) {
    const heads = [...table.querySelectorAll("thead th")].map(head => head.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, at) => { if (at && heads[at]) cell.dataset.head = heads[at]; });
    }
  }
});
