//! The look of the page.

/// Embedded in the page, so that it needs no other file.
pub(super) const CSS: &str = "
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f6f8fa; --good: #1a7f37; --bad: #cf222e; --same: #0969da; --dim: #59636e; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --soft: #161b22; --good: #3fb950; --bad: #f85149; --same: #58a6ff; --dim: #9198a1; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; }
@media (prefers-color-scheme: dark) { body { background: #0d1117; color: #e6edf3; } }
h1, h2, h3 { line-height: 1.25; }
h2 { margin-top: 2.5em; border-bottom: 2px solid var(--line); }
h3 { margin-top: 2em; }
a { color: inherit; text-decoration-color: var(--dim); }
.scroll { overflow-x: auto; margin: .7em 0; }
table { border-collapse: collapse; font-size: 13.5px; }
th, td { padding: .22em .75em; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { background: var(--soft); }
tbody th { font-weight: 500; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; }
td.why { white-space: normal; min-width: 12em; }
tr.ours { background: var(--soft); }
tr.ours th { font-weight: 700; }
small { color: var(--dim); font-size: .9em; }
.faster { color: var(--good); }
.slower { color: var(--bad); }
.equal { color: var(--same); }
.inconclusive { color: var(--dim); }
.quiet, .noisy { padding: .5em .9em; border-left: 5px solid var(--good); background: var(--soft); }
.noisy { border: 3px solid var(--bad); font-weight: 700; color: var(--bad); font-size: 1.15em; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1em 1.2em; }
dt { color: var(--dim); }
dd { margin: 0; }
.plots { display: flex; flex-wrap: wrap; gap: .5em 1em; }
figure { margin: .6em 0; min-width: 0; }
figcaption { font-size: 13.5px; color: var(--dim); }
svg { max-width: 100%; height: auto; }
summary { cursor: pointer; color: var(--dim); }
";
