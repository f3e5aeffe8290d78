"""The evaluation chain as text: `parse` what a model wrote, `format` what a model should write.

PART 1 is free text (P: preference modelling); PART 2 is one JSON object between `<JSON_START>` and
`<JSON_END>` (S: rationale and final scores; paper, section 3.1). The modules, top down: `wire`
joins the two parts; `json_tail` finds and mends the JSON object and `fields` takes it apart;
`breakdown` and `table` read the rationale into a `draft`, by the lines of `grammar`; `canonical`
writes it; `scores` knows how models write numbers and name responses.
"""

from pgenrm.chain.wire import format, parse

__all__ = ["format", "parse"]
