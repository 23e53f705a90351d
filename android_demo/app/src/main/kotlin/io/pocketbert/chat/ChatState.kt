/*
 * All that the chat's screen shows, and how each thing that happens changes it: state in, state out.
 *
 * What there is to do follows from the state too: which model to open (wanted), which text to label next (question).
 * Leaves out: doing it (Chat.kt), and everything about pixels and words.
 */
package io.pocketbert.chat

import io.pocketbert.core.Prediction

enum class Sender { USER, BOT }

/** A line of the conversation; [verdict] is the best label of a user's message, null until there is one. */
data class Message(val id: Long, val sender: Sender, val text: String, val verdict: Prediction? = null)

/**
 * What is in the input field. [turn] grows with every change, so an answer is known by it to be the newest text's;
 * [answer] is null until then.
 */
data class Draft(val turn: Long = 0, val text: String = "", val answer: List<Prediction>? = null)

/** A text to label: a message's that was sent (by its id), or the draft's (by its turn). */
sealed interface Question {
    val text: String

    data class Sent(val id: Long, override val text: String) : Question

    data class Typed(val turn: Long, override val text: String) : Question
}

data class ChatState(
    val messages: List<Message> = emptyList(), // oldest first
    val draft: Draft = Draft(),
    val choices: List<Choice> = emptyList(), // empty until the app knows what it carries
    val wish: Choice? = null, // what the user asked for
    val failures: Map<Choice, String> = emptyMap(), // what could not be used, and why
    val opened: Card? = null, // the model in use
    val figures: Figures = Figures(), // of the model in use
    val resting: Boolean = false, // in the background and asked to save memory: no model is held
    val sheet: Boolean = false, // whether the choice of models is shown
    val memory: Long? = null, // bytes, when last looked
) {
    /** The model that should be open; null if there is none to try, or the app rests. */
    val wanted: Choice?
        get() = if (resting) null else candidates.firstOrNull { it !in failures }

    /** The wish first; then the same model with another engine; then anything. */
    private val candidates: List<Choice>
        get() = choices.sortedBy { if (it == wish) 0 else if (it.model == wish?.model) 1 else 2 }

    /** Nothing in the app can be used. */
    val helpless: Boolean
        get() = choices.isNotEmpty() && choices.all { it in failures }

    /** What to label next, once a model is open: messages first, because the user waits for an answer. */
    val question: Question?
        get() {
            if (opened == null) return null
            messages.firstOrNull { it.sender == Sender.USER && it.verdict == null }?.let { return Question.Sent(it.id, it.text) }
            return if (draft.answer == null && draft.text.isNotBlank()) Question.Typed(draft.turn, draft.text) else null
        }
}

/** The input field holds another text. What was known of the one before is forgotten at once. */
fun ChatState.typed(text: String): ChatState =
    if (text == draft.text) this else copy(draft = Draft(draft.turn + 1, text))

/** The draft becomes a message, with its answer if that is there. A blank one stays. */
fun ChatState.sent(bot: Bot?): ChatState {
    if (draft.text.isBlank()) return this
    val message = Message((messages.lastOrNull()?.id ?: 0) + 1, Sender.USER, draft.text.trim())
    val next = copy(messages = (messages + message).takeLast(KEPT_MESSAGES), draft = Draft(draft.turn + 1))
    val known = draft.answer.takeIf { message.text == draft.text } // other blanks can be other ids
    return if (known == null || bot == null) next else next.verdict(message.id, known, bot)
}

/** The model's answer. One to a draft that has changed since is dropped; so is one that has been answered. */
fun ChatState.answered(question: Question, answer: List<Prediction>, nanoseconds: Long, bot: Bot): ChatState {
    val timed = copy(figures = figures.with(nanoseconds))
    return when (question) {
        is Question.Typed -> if (question.turn != draft.turn) timed else timed.copy(draft = draft.copy(answer = answer))
        is Question.Sent -> timed.verdict(question.id, answer, bot)
    }
}

/** A message gets its label, and the bot answers. */
private fun ChatState.verdict(id: Long, answer: List<Prediction>, bot: Bot): ChatState {
    if (messages.none { it.id == id && it.verdict == null }) return this
    val labelled = messages.map { if (it.id == id) it.copy(verdict = answer.first()) else it }
    val reply = Message(messages.last().id + 1, Sender.BOT, bot.answer(answer.first(), messages.count { it.sender == Sender.BOT }))
    return copy(messages = (labelled + reply).takeLast(KEPT_MESSAGES))
}

/** The user asks for a model; one that failed before gets another chance. */
fun ChatState.chosen(choice: Choice): ChatState = copy(wish = choice, failures = failures - choice).closedUnlessWanted()

/** A model is open. */
fun ChatState.opened(card: Card): ChatState = copy(opened = card, figures = Figures())

/** A model cannot be used, or no more. */
fun ChatState.failed(choice: Choice, reason: String): ChatState =
    copy(failures = failures + (choice to reason)).closedUnlessWanted()

/** The system asks for memory while nobody looks; and somebody looks again. */
fun ChatState.rested(resting: Boolean): ChatState = copy(resting = resting).closedUnlessWanted()

/** What the app carries and what was kept of an earlier life. What was typed since the start is newer. */
fun ChatState.restored(saved: Saved?, choices: List<Choice>): ChatState {
    val before = saved?.messages.orEmpty()
    val ids = before.lastOrNull()?.id ?: 0
    return copy(
        choices = choices,
        wish = saved?.wish?.takeIf { it in choices } ?: choices.firstOrNull(),
        messages = before + messages.map { it.copy(id = ids + it.id) },
        draft = if (draft.turn > 0 || saved == null) draft else Draft(draft.turn + 1, saved.draft),
    )
}

/** The conversation is forgotten; the draft, the model and its figures stay. */
fun ChatState.cleared(): ChatState = copy(messages = emptyList())

/** A model that is not the wanted one is out of use from this moment, and the draft waits for the next one's answer. */
private fun ChatState.closedUnlessWanted(): ChatState =
    if (opened?.choice == wanted) this else copy(opened = null, draft = draft.copy(answer = null))

/** The part of the state that outlives the process. */
data class Saved(val messages: List<Message>, val draft: String, val wish: Choice?)

val ChatState.saved: Saved get() = Saved(messages, draft.text, wish)

const val KEPT_MESSAGES = 500 // bounds what is held, drawn and written
