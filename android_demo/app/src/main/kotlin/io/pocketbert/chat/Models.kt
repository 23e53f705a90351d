/*
 * What the chat asks of the models that the app carries: which there are, and to open one. It knows no engine by name.
 */
package io.pocketbert.chat

import io.pocketbert.core.Prediction

/** A model (the name of its bundle) and an engine for it (the format of its artifact). */
data class Choice(val model: String, val engine: String)

/** What is worth knowing about an opened model. */
data class Card(
    val choice: Choice,
    val labels: List<String>, // in the order of the logits
    val artifactBytes: Long,
    val engineVersion: String,
    val gap: Float?, // the largest difference of a probability that the self-check found; null if no disk kept it
)

/** A model that has proved itself and is ready to label texts. Calls come one at a time; [close] after the last. */
interface OpenModel {
    val card: Card

    /** The labels of a text, best first. */
    suspend fun classify(text: String): List<Prediction>

    suspend fun close()
}

/** The models in this app. No call blocks its caller's thread. */
interface Models {
    /** Every model with every engine; the first is the one to begin with. */
    suspend fun choices(): List<Choice>

    /** Opens one. Throws an exception whose message says what is wrong, and what to do, in words for people. */
    suspend fun open(choice: Choice): OpenModel
}
