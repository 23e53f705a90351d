/*
 * The bubbles of the conversation, the bot's greeting first.
 *
 * A bubble shows the beginning of a very long text: laying out all of a pasted book would take the screen with it.
 */
package io.pocketbert.app

import android.content.Context
import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.BaseAdapter
import android.widget.TextView
import io.pocketbert.chat.Chat
import io.pocketbert.chat.ChatState
import io.pocketbert.chat.Message
import io.pocketbert.chat.Sender

class MessagesAdapter(private val context: Context, private val words: Words, private val chat: Chat) : BaseAdapter() {
    private val inflater = LayoutInflater.from(context)
    private val widest = (context.resources.displayMetrics.density * context.resources.configuration.screenWidthDp)
        .let { minOf(it * WIDTH_SHARE, context.resources.displayMetrics.density * WIDEST_DP).toInt() }
    private var shown: List<Message>? = null
    private var labels: List<String> = emptyList()
    private var rows = emptyList<Message>()

    fun show(state: ChatState) {
        val names = state.opened?.labels ?: labels // while a model is being opened, colours stay
        val greeting = chat.bot?.greeting.orEmpty()
        if (state.messages === shown && names == labels && (rows.isNotEmpty() || greeting.isEmpty())) return
        shown = state.messages
        labels = names
        rows = if (greeting.isEmpty()) state.messages else listOf(Message(GREETING, Sender.BOT, greeting)) + state.messages
        notifyDataSetChanged()
    }

    override fun getCount() = rows.size

    override fun getItem(position: Int) = rows[position]

    override fun getItemId(position: Int) = rows[position].id

    override fun hasStableIds() = true

    override fun getViewTypeCount() = Sender.entries.size

    override fun getItemViewType(position: Int) = rows[position].sender.ordinal

    override fun isEnabled(position: Int) = false // a row is read, not tapped

    override fun getView(position: Int, old: View?, parent: ViewGroup): View {
        val message = rows[position]
        val layout = if (message.sender == Sender.USER) R.layout.message_user else R.layout.message_bot
        val row = old ?: inflater.inflate(layout, parent, false).also { it.findViewById<TextView>(R.id.bubble).maxWidth = widest }
        val text = words.beginning(message.text, SHOWN_CHARACTERS)
        row.findViewById<TextView>(R.id.bubble).text = text
        row.findViewById<TextView>(R.id.caption)?.let { show(it, message) }
        row.contentDescription = if (message.sender == Sender.USER) words.youSaid(text, message.verdict) else words.botSaid(text)
        val answer = message.sender == Sender.BOT && position > 0 && position == rows.lastIndex
        row.accessibilityLiveRegion = if (answer) View.ACCESSIBILITY_LIVE_REGION_POLITE else View.ACCESSIBILITY_LIVE_REGION_NONE
        return row
    }

    private fun show(caption: TextView, message: Message) {
        val verdict = message.verdict
        caption.text = if (verdict == null) words.reading else words.caption(verdict)
        caption.setTextColor(if (verdict == null) words.soft else words.color(labels.indexOf(verdict.label)))
    }

    private companion object {
        const val GREETING = 0L // messages count from 1
        const val SHOWN_CHARACTERS = 2000 // about two screens
        const val WIDTH_SHARE = 0.82f // of the window, so that the side shows who speaks
        const val WIDEST_DP = 560f // longer lines are hard to read
    }
}
