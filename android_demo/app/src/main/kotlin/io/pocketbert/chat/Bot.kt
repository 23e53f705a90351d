/*
 * A bot that answers by label, from a table.
 *
 * Takes lines of three columns between tabs: a label, its emoji, an answer. Answers come in turn, so that a conversation does
 * not repeat itself; {label} and {percent} in them are filled in. Four words stand for no label: HELLO is said first, UNSURE
 * when the best label is not likely enough, OTHER for labels that have no line; and MODEL lines list the bundles of the app,
 * each with its folder and its name, the one to begin with first.
 */
package io.pocketbert.chat

import io.pocketbert.core.Prediction
import kotlin.math.roundToInt

class Bot private constructor(
    val models: Map<String, String>, // the folders of the bundles, and their names for people
    private val answers: Map<String, List<String>>,
    private val emojis: Map<String, String>,
) {
    /** What the bot says before anything was said; empty if the table has no such line. */
    val greeting: String get() = answers[HELLO]?.first().orEmpty()

    /** The emoji of a label; empty if the table has none. */
    fun emoji(label: String): String = emojis[label].orEmpty()

    /** The answer to a text with this best label; [turn] counts the answers before. */
    fun answer(best: Prediction, turn: Int): String {
        val key = if (best.score < SURE) UNSURE else best.label.takeIf(answers::containsKey) ?: OTHER
        val lines = answers[key] ?: answers[OTHER] ?: listOf("{label}, {percent} %")
        return lines[turn.mod(lines.size)]
            .replace("{label}", best.label)
            .replace("{percent}", (best.score * PERCENT).roundToInt().toString())
    }

    companion object {
        const val SURE = 0.7f // a best label below this is said to be unsure
        private const val PERCENT = 100
        private const val COLUMNS = 3
        private const val MODEL = "MODEL"
        private const val HELLO = "HELLO"
        private const val UNSURE = "UNSURE"
        private const val OTHER = "OTHER"

        /** Reads the table; lines that are empty or begin with # are for people. Throws [IllegalArgumentException]. */
        fun read(table: String): Bot {
            val rows = table.lines().filter { it.isNotBlank() && !it.startsWith("#") }.map { line ->
                line.split('\t').also { require(it.size == COLUMNS) { "not label, emoji, answer between tabs: $line" } }
            }
            val (models, lines) = rows.partition { it[0] == MODEL }
            val emojis = lines.filter { it[1].isNotBlank() }.associate { it[0] to it[1] }
            return Bot(models.associate { it[1] to it[2] }, lines.groupBy({ it[0] }, { it[2] }), emojis)
        }
    }
}
