"""A small model as the text of its files."""

MODEL = """\
format: 1
title: Small
problem:
  arms: arms.csv
  dynamics: {kind: tabular, file: transitions.csv, by: type, reward: {bad: 0, good: 1}}
  horizon: 3
constraints:
  weekly: {kind: budget, at_most: 1}
train: {episodes: 1, pretrain_steps: 1, hidden: [4], head: 2, validation_episodes: 0}
"""
"""Three arms of one type, one acted on a round."""

TABLES = {
    "transitions.csv": "type,state,action,bad,good\na,bad,0,0.75,0.25\na,bad,1,0.25,0.75\n"
    "a,good,0,0.5,0.5\na,good,1,0.125,0.875\n",
    "state.csv": "id,state\np0,bad\np1,good\np2,bad\n",
}
"""Files beside it; ``arms.csv`` with columns ``id`` and ``type`` is the test's own."""
