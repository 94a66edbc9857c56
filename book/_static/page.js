// docutils says "list" of the bibliography, whose entries are not items of a list; screen readers
// stumble over that.
addEventListener("DOMContentLoaded", () => {
  for (const list of document.querySelectorAll('.citation-list[role="list"]')) {
    list.removeAttribute("role");
  }
});
