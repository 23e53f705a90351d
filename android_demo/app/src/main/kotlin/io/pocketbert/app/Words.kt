/*
 * Puts the state into words, numbers and colours of the phone's language and theme.
 */
package io.pocketbert.app

import android.content.Context
import android.text.BidiFormatter
import android.text.format.Formatter
import io.pocketbert.chat.Bot
import io.pocketbert.chat.Card
import io.pocketbert.chat.ChatState
import io.pocketbert.chat.Choice
import io.pocketbert.core.Prediction
import java.text.NumberFormat

class Words(private val context: Context, private val bot: () -> Bot?) {
    private val locale = context.resources.configuration.locales[0]
    private val bidi = BidiFormatter.getInstance(locale)
    private val percents = NumberFormat.getPercentInstance(locale).apply { digits(1) }
    private val tenths = NumberFormat.getInstance(locale).apply { digits(1) }
    private val fine = NumberFormat.getInstance(locale).apply { digits(FINE) }
    private val whole = NumberFormat.getIntegerInstance(locale)
    private val colors = context.resources.obtainTypedArray(R.array.labels).run {
        IntArray(length()) { getColor(it, 0) }.also { recycle() }
    }

    val idle: String = context.getString(R.string.idle)
    val reading: String = context.getString(R.string.reading)
    val soft = context.getColor(R.color.ink_soft)

    /** The colour of a label by its place in the bundle; of one that this bundle does not have, a soft one. */
    fun color(label: Int): Int = if (label < 0) soft else colors[label % colors.size]

    fun percent(score: Float): String = percents.format(score.toDouble())

    fun ms(value: Double?): String = if (value == null) unknown else context.getString(R.string.ms, tenths.format(value))

    fun count(value: Int): String = whole.format(value.toLong())

    fun bytes(value: Long?): String = if (value == null) unknown else Formatter.formatShortFileSize(context, value)

    fun check(card: Card?): String = card?.gap?.let { context.getString(R.string.passed, fine.format(it.toDouble())) } ?: unknown

    fun version(card: Card?): String = card?.engineVersion ?: unknown

    fun unusable(reason: String): String = context.getString(R.string.unusable, wrapped(reason))

    /** The name of a label as people write it: POSITIVE becomes Positive; with its emoji in front. */
    fun label(label: String): String {
        val emoji = bot()?.emoji(label).orEmpty()
        return if (emoji.isEmpty()) plain(label) else context.getString(R.string.label, emoji, plain(label))
    }

    private fun plain(label: String) = if (label.any { it.isLowerCase() }) label else label.lowercase().replaceFirstChar { it.uppercase() }

    fun caption(verdict: Prediction): String = context.getString(R.string.caption, label(verdict.label), percent(verdict.score))

    fun typedLabel(best: Prediction): String = context.getString(R.string.typed_label, plain(best.label), percent(best.score))

    fun youSaid(text: String, verdict: Prediction?): String = if (verdict == null) {
        context.getString(R.string.you_said, text)
    } else {
        context.getString(R.string.you_said_labelled, text, plain(verdict.label), percent(verdict.score))
    }

    fun botSaid(text: String): String = context.getString(R.string.bot_said, text)

    /** The beginning of a long text, and how much more of it there is. */
    fun beginning(text: String, length: Int): String {
        if (text.length <= length) return text
        val end = if (text[length - 1].isHighSurrogate()) length - 1 else length
        val left = text.length - end
        return context.resources.getQuantityString(R.plurals.more, left, text.substring(0, end).trimEnd(), count(left))
    }

    fun status(state: ChatState): String {
        val wanted = state.wanted
        val card = state.opened
        return when {
            card != null && state.figures.lastMs != null ->
                context.getString(R.string.status_timed, model(card.choice), engine(card.choice), tenths.format(state.figures.lastMs))
            card != null -> context.getString(R.string.status, model(card.choice), engine(card.choice))
            wanted != null -> context.getString(R.string.status_opening, model(wanted))
            state.helpless -> context.getString(R.string.status_helpless)
            else -> ""
        }
    }

    /** What went wrong with the wish, and what answers instead; null if nothing did. */
    fun notice(state: ChatState): String? {
        val wish = state.wish ?: return null
        val reason = wrapped(state.failures[wish] ?: return null)
        val other = state.opened?.choice
        return when {
            state.helpless -> context.getString(R.string.helpless, model(wish), engine(wish), reason)
            other == null -> null // being opened
            else -> context.getString(R.string.fallback, model(wish), engine(wish), reason, model(other), engine(other))
        }
    }

    fun model(choice: Choice): String = bot()?.models?.get(choice.model) ?: choice.model

    fun engine(choice: Choice): String = ENGINES[choice.engine] ?: choice.engine

    private val unknown get() = context.getString(R.string.unknown)

    private fun wrapped(reason: String) = bidi.unicodeWrap(reason.trimEnd('.'))

    private fun NumberFormat.digits(count: Int) {
        minimumFractionDigits = count
        maximumFractionDigits = count
    }

    private companion object {
        const val FINE = 4 // digits of the self-check's gap, which is a hundredth at most
        val ENGINES = mapOf("tflite" to "LiteRT", "executorch" to "ExecuTorch")
    }
}
