// docutils says "list" of the bibliography, whose entries are not items of a list; screen readers
// stumble over that.
addEventListener("DOMContentLoaded", () => {
  for (const list of document.querySelectorAll('.citation-list[role="list"]')) {
    list.removeAttribute("role");
  }
});

// A browser keeps pages on disk from reading one another, so a search there goes without excerpts.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// Where there is no margin, a note in it follows the paragraph that it belongs to.
addEventListener("DOMContentLoaded", () => {
  if (!matchMedia("(max-width: 1199.98px)").matches) return;
  for (const note of document.querySelectorAll("aside.margin")) note.nextElementSibling?.after(note);
});
