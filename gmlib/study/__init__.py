"""The evidence, one folder a stage; no stage imports from one after it.

=============  ==================================================================
`datasets`     where data come in: load, standardize, fetch and verify
`plan`         what a run is: settings, families of networks, arms, the studies
`runs`         records, training, ledger, sweeps over many runs, what verifies
`analysis`     from records to tables, and measurements that need no training
`figures`      from tables to figures
`claims`       the note's statements, how each is measured, verdicts
=============  ==================================================================

`validation` is for all of them, and `cli` is the command ``gmlib``. Notebooks call the stages and
hold no logic of their own. Needs the extra ``gmlib[study]``.
"""
