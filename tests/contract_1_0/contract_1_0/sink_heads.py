"""What kind of head each is: idle on the first tokens, or busy elsewhere."""

from __future__ import annotations

import attrs
import numpy as np

from headwise import HeadLabels, HeadStatistics, hookimpl


@attrs.frozen(eq=False)
class SinkHeads:
    """Heads that spend more than half of their attention on the first ``sinks`` tokens are idle, all others busy."""

    sinks: int = attrs.field(default=4, converter=int, validator=attrs.validators.ge(1))

    @hookimpl
    def head_classification(self, statistics: HeadStatistics) -> HeadLabels:
        """Labels (layers, heads), sure where the share is far from a half."""
        share = statistics.attention(sinks=self.sinks).sink.mean(axis=0)
        sure = np.maximum(share, 1 - share)
        return HeadLabels(names=("idle", "busy"), labels=(share <= 0.5).astype(np.int64), confidence=sure)
