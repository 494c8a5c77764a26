"""Forty strings that would like to run as a script, and flows, processes and histories that are made of nothing else."""

from __future__ import annotations

import functools
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import create_model

from onward import END, Context, Flow, Onward, Process, Retry, stage

# Each sets the global `canary`, or puts an element there, if a browser ever takes it for more than text.
STRINGS = (
    "<script>canary=1</script>",
    "</script><script>canary=1</script>",
    "<ScRiPt>canary=1</sCrIpT>",
    "<<script>canary=1//<</script>",
    "<script src=data:,canary=1></script>",
    "<img src=x onerror=canary=1>",
    "<img/src/onerror=canary=1>",
    "\"><img src=x onerror='canary=1'>",
    '\'><img src=x onerror="canary=1">',
    '"><svg/onload=canary=1>',
    "<svg><animate onbegin=canary=1 attributeName=x dur=1s>",
    "<svg><script>canary=1</script></svg>",
    "<svg><style><img src=x onerror=canary=1></style></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=canary=1>",
    '" autofocus tabindex=1 onfocus=canary=1 x="',
    "' autofocus tabindex=1 onfocus=canary=1 x='",
    "<input autofocus onfocus=canary=1>",
    "<details open ontoggle=canary=1>x</details>",
    "<body onload=canary=1>",
    "<video><source onerror=canary=1></video>",
    "<audio src=x onerror=canary=1>",
    "<iframe srcdoc='<script>parent.canary=1</script>'></iframe>",
    "<iframe src='javascript:parent.canary=1'></iframe>",
    "<object data='data:text/html,<script>parent.canary=1</script>'></object>",
    "<a id=canary href='javascript:canary=1'>x</a>",
    "<form id=canary><button formaction='javascript:canary=1'>x</button></form>",
    "<meta http-equiv=refresh content='0;url=javascript:canary=1'>",
    "<base href='http://127.0.0.1:9/'>",
    "<link rel=stylesheet href='http://127.0.0.1:9/canary.css'>",
    "<style>@keyframes x{}</style><p style='animation-name:x' onanimationstart=canary=1>",
    "</textarea><img src=x onerror=canary=1>",
    "</title><img src=x onerror=canary=1>",
    "</noscript><img src=x onerror=canary=1>",
    "</option></select><img src=x onerror=canary=1>",
    "--><img src=x onerror=canary=1><!--",
    "]]><img src=x onerror=canary=1>",
    "&lt;img src=x onerror=canary=1&gt; &#60;script&#62;canary=1&#60;/script&#62;",
    "\\u003cimg src=x onerror=canary=1\\u003e %3Cscript%3Ecanary=1%3C/script%3E",
    "javascript:canary=1//';canary=1;//`${canary=1}`",
    "{{ 7*'7' }}{% for x in (1,2) %}X{% endfor %}{{ self._TemplateReference__context }}${canary=1}",
)


def _model(number: int, text: str) -> type[Process[Any]]:
    statuses = StrEnum(f"Status{number}", {"BEGIN": text, "FAILS": f"{text} 2", "END": f"{text} 3"})
    return create_model(
        f"Evil{number}",
        __base__=Process[statuses],  # type: ignore[valid-type]
        status=(statuses, statuses.BEGIN),  # type: ignore[attr-defined]
        text=(str, text),
        by_name=(dict[str, Any], {text: [text, {text: text}]}),
    )


def flow_of(number: int) -> Flow[Any]:
    text, model = STRINGS[number], _model(number, STRINGS[number])
    statuses = model.model_fields["status"].annotation
    error = type(text, (Exception,), {})

    async def begin(process: Any, ctx: Context) -> Any:
        await ctx.once(text, str, text)
        return statuses.FAILS  # type: ignore[union-attr]

    async def fails(process: Any, ctx: Context) -> Any:
        await ctx.once(text, str, text)
        raise error(f"{text}\n  {text}")

    for handler, target in ((begin, "FAILS"), (fails, "END")):
        handler.__qualname__ = handler.__name__ = text
        handler.__annotations__["return"] = Literal[statuses[target]]  # type: ignore[index]
    table = {statuses.BEGIN: begin, statuses.FAILS: stage(fails, retry=Retry(1)), statuses.END: END}  # type: ignore[union-attr]
    return Flow(model, table, name=text)


@functools.cache
def flows() -> tuple[Flow[Any], ...]:
    return tuple(map(flow_of, range(len(STRINGS))))


def opened(path: Path) -> Onward:
    return Onward(f"sqlite:///{path}", flows=flows())


async def fill(app: Onward) -> None:
    """Two processes of each flow: one failed, one was paused by somebody, for a reason; and a worker holds one more."""
    known = [(flow.name, flow.start, 1) for flow in flows()]
    for flow, text in zip(flows(), STRINGS, strict=True):
        for id in (text, f"{text} p", f"{text} w"):
            await app.start(flow.model(id=id), actor=text)
        await app.check(text)
        await app.pause(f"{text} p", actor=text, reason=text)
        await app.store.claim(known, text, 1, timedelta(hours=1), [f"{text} w"])
