"""How each figure of the page is read: one sentence each, by the name of the figure."""

HOW_TO_READ = {
    "metrics": (
        "Each dot is the mean over all queries, and the line through it covers 95 % of what other users of the same "
        "kind would give; where the lines of two evaluations hardly overlap, the difference is no accident."
    ),
    "differences": (
        "How much higher each metric is than that of the first evaluation on the same users; a star says that the "
        "difference holds after correction for all comparisons."
    ),
    "slices": (
        "Head, mid and tail are targets that make up a third of all purchases each, from the most to the least popular; "
        "warm ones were seen in training, cold ones never: a method that only repeats what is popular has a high first "
        "bar and low others."
    ),
    "losses": "The lower, the better; a dashed line (valid) that rises while the solid one (train) falls is overfitting.",
    "by_gain": (
        "Deciding tokens narrow down which title is meant, forced ones follow from what is written; forced tokens are "
        "soon learnt, so they should be low early and the deciding ones should still fall."
    ),
    "data": (
        "How many target tokens each split has, and how many of them decide nothing: the paper finds 56 to 73 % without "
        "gain, and all that share would be loss spent on spelling."
    ),
    "gain": (
        "Tokens by what they decide, 0 for those that decide nothing: the bar at 0 is the share that IGD weighs down, of "
        "all titles once and of the titles as often as they were bought."
    ),
    "logp": (
        "Mean log-probability of the true tokens; what training has won on deciding tokens is what helps to recommend."
    ),
    "gain_logp": (
        "The log-probability that the trained model gives to true tokens, and how unsure it is, from tokens that decide "
        "nothing to those that decide most; without gain both should be near 0."
    ),
    "entropy": (
        "How unsure the model is at each token, of true titles and of those that it recommends; it should fall along the "
        "title, and be alike for both."
    ),
    "ghosts": (
        "Share of tokens that are as good as certain; they make long titles look likely where a length penalty divides "
        "by their number."
    ),
    "history": "What the history adds to the log-probability of each token; near 0, the model writes without reading it.",
    "users": "Metrics by how many train rows a user has: the left bars are users of whom little is known.",
    "histories": "Metrics by how many items the model was shown of a user.",
    "items": (
        "Titles by how often they were bought in training; where the share of the recommended exceeds that of the truth, "
        "such titles are recommended too often."
    ),
    "lists": (
        "Coverage is the share of the catalogue that is ever recommended, gini is 0 for equal shares and 1 for one title "
        "only, and head, mid and tail are shares of popularity; each is right where it is as for the truth."
    ),
    "misses": (
        "Share of lists that lack one of the best titles, and share of those titles that are lacking, beside a ranking of "
        "all titles by the same scores; 0 means that a wider beam would change nothing."
    ),
    "heat": (
        "Choose what is shown: the darker a token, the larger its gain or its weight in the loss, or the more improbable "
        "it is after the history of the user; after training the dark tokens should be those with gain."
    ),
    "beam": (
        "A path from left to right is a title as it is written, with its score so far, and at its end its place in the "
        "list; choose a part to open or close what follows, a plus marks what only alpha keeps, a minus what it drops."
    ),
    "lists_of_users": (
        "The history is what the model was shown, the list what it answered, the best first; a mark shows the title that "
        "the user took next."
    ),
    "search": (
        "How often a title was bought in training, stands in a list, was the target, and was found; type a part of a "
        "title or an item id."
    ),
}
