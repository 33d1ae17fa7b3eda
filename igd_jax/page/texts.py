"""How each figure of the page is read: one sentence each, by the name of the figure."""

from igd_jax.evaluation.tables import ENOUGH

HOW_TO_READ = {
    "metrics": (
        "Each dot is the mean over all queries, and the line through it the interval in which it lies for 95\u00a0% of "
        "resampled users; whether two evaluations differ by more than chance is not told by how far their lines "
        "overlap, but by the table of differences, which pairs the users."
    ),
    "differences": (
        "How much higher each metric is than that of the first evaluation on the same users, with its interval; a "
        "star says that the difference is more than chance. Both are corrected for all comparisons."
    ),
    "slices": (
        "Head, mid and tail are the targets that make up the first, second and last third of all purchases, from the "
        "most popular on; warm targets were seen in training, cold ones were not, so a method that repeats what is "
        f"popular has a high first bar and low others; what is pale or marked few is of fewer than {ENOUGH} queries, "
        "and says little."
    ),
    "losses": (
        "Lower is better; where the dashed line (valid) rises while the solid one (train) falls, the model overfits."
    ),
    "by_gain": (
        "Deciding tokens narrow down which title is meant, forced ones follow from what is written; forced tokens are "
        "learnt early, and what is left to learn is the loss of the deciding ones."
    ),
    "data": (
        "Target tokens of each split and how many of them decide nothing; the paper finds 56 to 73\u00a0% without "
        "gain, and unweighted training would spend that share of its tokens on spelling."
    ),
    "gain": (
        "Tokens by what they decide, in nats; the bar at 0 is the share that IGD weighs down, once over all titles "
        "and once over the titles as often as they were bought."
    ),
    "logp": (
        "Mean log-probability that the untrained and the trained model give to true tokens of titles on the trie; what "
        "is won on deciding tokens is what helps to recommend."
    ),
    "gain_logp": (
        "Log-probability and entropy of the trained model at true tokens, from those that decide nothing to those "
        "that decide most; without gain, both should be near 0. Titles off the trie are left out."
    ),
    "entropy": (
        "How unsure the model is at each token of true and of recommended titles; it should fall along the title, and "
        "be alike for both."
    ),
    "ghosts": (
        "Share of tokens that are as good as certain; where a length penalty divides by the number of tokens, they "
        "make long titles look likely."
    ),
    "history": (
        "What the history adds to the log-probability of each token; near 0, the model writes without reading it."
    ),
    "users": "Metrics by the number of train rows of the user; the first bars are users of whom little is known.",
    "histories": "Metrics by the number of items in the history that the model was shown.",
    "items": (
        "Titles by how often they were bought in training; where the share among the recommended exceeds that of the "
        "truth, such titles are recommended too often."
    ),
    "lists": (
        "Coverage is the share of the candidates that is recommended at all, gini runs from 0 (all titles alike) to 1 "
        "(one title only), and head, mid and tail are shares of popularity; compare each with the truth."
    ),
    "misses": (
        "Share of lists that lack one of the exact first k titles, and share of these titles that are lacking; 0 "
        "means that a wider beam would change nothing."
    ),
    "heat": (
        "The darker a token, the larger its gain or weight, or the less probable it is after the history of the user; "
        "after training, the dark tokens should be those with gain."
    ),
    "beam": (
        "Each path downwards and to the right is a title as it is written, with its score so far and its place in the "
        "list; select a part to open or close what follows it, and look for a plus where only alpha keeps a part, "
        "and a minus where it drops one."
    ),
    "lists_of_users": (
        "The history is what the model was shown, and the list is its answer, best first; a mark shows the title that "
        "the user took next."
    ),
    "search": (
        "How often a title was bought in training, stands in a list, was a target, and was found; type parts of a "
        "title or an item id."
    ),
}
