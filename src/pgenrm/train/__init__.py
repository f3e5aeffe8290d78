"""Training a judge: chains, SFT, criteria-based reinforcement learning, curriculum (section 3.2).

`chains` writes the data set, `sft`, `rl` and `curriculum` are the paper's three stages, one file
each. Under them: `recipe` (what a run is told), `record` (run.json: what it was told, and how it
ended), `rows` (its data), `models` (its weights), `trl_config` (TRL's settings), `callbacks` and
`loop` (the run itself), `chart` (its picture), `estimate` (what it needs).

The two stages by reward share `rl_rows` (prompts), `rewards` with `process_judge` or `coverage`,
`grpo` (what is added to TRL's trainer), and `blocks` with `hardness` (which prompts come when).
"""
