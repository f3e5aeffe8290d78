"""The bundled judge: a small model trained from scratch on the simulated world alone.

What stands here is how it is made: its words (`words`), the chain that it writes (`steps`), a
teacher that samples from the posterior over the user (`teacher`), practice for single steps
(`practice`), and its tokenizer (`tokenizer`). The engine that runs it is `pgenrm.engines.nano`.
"""
