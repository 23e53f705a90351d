/* Models without engines: an answer follows from the text alone, so that a test knows which text it belongs to. */
package io.pocketbert.chat

import io.pocketbert.core.EngineException
import io.pocketbert.core.Prediction
import kotlinx.coroutines.delay

val ALBERT = Choice("albert", "tflite")
val ALBERT_EXECUTORCH = Choice("albert", "executorch")
val DISTILBERT = Choice("distilbert", "tflite")
val DISTILBERT_EXECUTORCH = Choice("distilbert", "executorch")
val CHOICES = listOf(ALBERT, ALBERT_EXECUTORCH, DISTILBERT, DISTILBERT_EXECUTORCH)
val LABELS = listOf("NEGATIVE", "POSITIVE")

/** What the fake models answer to a text: another probability for each, always sure enough for the bot. */
fun truth(text: String): List<Prediction> {
    val positive = 0.75f + (text.hashCode().mod(1000)) / 5000f
    val best = if ("good" in text) "POSITIVE" else "NEGATIVE"
    return listOf(Prediction(best, positive), Prediction(LABELS.first { it != best }, 1 - positive))
}

val TABLE = """
    MODEL	albert	ALBERT
    HELLO		Hello!
    POSITIVE	😊	Nice!
    POSITIVE	😊	Great!
    NEGATIVE	😕	Oh no.
    UNSURE		Hm.
    OTHER		{label} at {percent} %
""".trimIndent()

/** Models that take [answerMs] for an answer and [openMs] to open; [broken] ones say why they cannot. */
class FakeModels(
    private val answerMs: Long = 0,
    private val openMs: Long = 0,
    val broken: MutableMap<Choice, Throwable> = mutableMapOf(),
    private val choices: List<Choice> = CHOICES,
) : Models {
    val asked = mutableListOf<String>() // texts that a model was asked to label
    val opened = mutableListOf<Choice>()
    var held = 0 // models that are open
    var failing: (String) -> Boolean = { false } // texts at which the engine breaks down

    override suspend fun choices() = choices

    override suspend fun open(choice: Choice): OpenModel {
        delay(openMs)
        broken[choice]?.let { throw it }
        opened += choice
        held++
        return FakeModel(choice)
    }

    private inner class FakeModel(choice: Choice) : OpenModel {
        override val card = Card(choice, LABELS, artifactBytes = 4_100_000, engineVersion = "9.9", gap = 0.0012f)
        private var closed = false

        override suspend fun classify(text: String): List<Prediction> {
            check(!closed) { "asked after it was closed" }
            asked += text
            delay(answerMs)
            check(!closed) { "closed while it answered" }
            if (failing(text)) throw EngineException("it broke down")
            return truth(text)
        }

        override suspend fun close() {
            check(!closed) { "closed twice" }
            closed = true
            held--
        }
    }
}
