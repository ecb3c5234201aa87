"""The recurrent baselines: RNN (tanh), LSTM and GRU language models.

They have a decoder's interface.

B batch, T tokens, D embedding width, S state width, V vocabulary, n scored positions. Only the
state passes from token to token: whatever is to be remembered must be in it. There is no dropout
and no layer norm between layers.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

KINDS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """A recurrent language model with tied embeddings.

    It has an embedding, `layers` recurrent layers of state width `mlp_width`, a projection back to
    D, and the embedding's transpose.

    Args:
        config: a `ModelConfig` of kind rnn, lstm or gru.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.recurrence = KINDS[config.kind](
            config.width, config.mlp_width, config.layers, batch_first=True
        )
        self.out = nn.Linear(config.mlp_width, config.width, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.initialise()

    @property
    def state_numbers(self) -> int:
        """Return how many numbers are carried from token to token.

        It is S a layer, and twice that for an LSTM (h and c).
        """
        return self.config.layers * self.config.mlp_width * (2 if self.config.kind == "lstm" else 1)

    def initialise(self) -> None:
        """Draw the initial weights.

        Embeddings are normal, recurrent matrices orthogonal and input matrices Glorot; an LSTM's
        forget bias starts at 1. The forget bias follows Gers et al. 2000 and Jozefowicz et al.
        2015; torch adds two biases, so one is set.
        """
        nn.init.normal_(self.embedding, std=self.config.embedding_std or self.config.init_std)
        nn.init.xavier_uniform_(self.out.weight)
        S = self.config.mlp_width
        for name, parameter in self.recurrence.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
                if self.config.kind == "lstm" and name.startswith("bias_ih"):
                    # torch orders the gates input, forget, cell, output.
                    nn.init.ones_(parameter[S : 2 * S])
            else:
                fill = nn.init.orthogonal_ if "weight_hh" in name else nn.init.xavier_uniform_
                for gate in parameter.split(S):
                    fill(gate)

    def hidden(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Return the projected states after each token."""
        return self.from_embedded(F.embedding(tokens, self.embedding))

    def from_embedded(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return `hidden` for embedded tokens.

        So a gradient can be taken with respect to them.
        """
        return self.out(self.recurrence(x)[0])

    def logits(self, x: Float[Tensor, "n D"]) -> Float[Tensor, "n V"]:
        """Return the scores of all V tokens."""
        return F.linear(x, self.embedding, self.output_bias)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None = None,
        select: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "*n V"]:
        """Return the logits of the next token, (B, T, V).

        With `select` they are (n, V), of the positions that it marks.

        Raises:
            ValueError: documents: the state would have to be reset within a row, which torch's
                kernels do not do.
        """
        if documents is not None:
            raise ValueError("documents: expected none, a recurrent row is one document")
        hidden_BTD = self.hidden(tokens)
        return self.logits(hidden_BTD if select is None else hidden_BTD[select])
