/*
 * The sheet from below: which model, which engine, and the figures of the one that answers.
 *
 * Takes the screen's context and the chat. Leaves out: opening models; it says what is wished, and shows the state.
 */
package io.pocketbert.app

import android.app.Activity
import android.app.Dialog
import android.view.View
import android.view.ViewGroup
import android.view.ViewGroup.LayoutParams.MATCH_PARENT
import android.widget.LinearLayout
import android.widget.RadioButton
import android.widget.RadioGroup
import android.widget.TextView
import io.pocketbert.chat.Chat
import io.pocketbert.chat.ChatState
import io.pocketbert.chat.Choice

class ModelSheet(activity: Activity, private val chat: Chat) : Dialog(activity, R.style.Sheet) {
    private val words = Words(activity, chat::bot)
    private val models: RadioGroup
    private val engines: RadioGroup
    private val figures: LinearLayout

    init {
        setTitle(R.string.sheet_title)
        setContentView(R.layout.sheet)
        window?.setLayout(MATCH_PARENT, MATCH_PARENT)
        window?.drawEdgeToEdge()
        models = findViewById(R.id.models)
        engines = findViewById(R.id.engines)
        figures = findViewById(R.id.figures)
        findViewById<View>(R.id.outside).setOnClickListener { cancel() }
        findViewById<View>(R.id.clear).setOnClickListener {
            chat.clear()
            cancel()
        }
        keepClear(findViewById(R.id.outside), findViewById(R.id.sheet))
        setOnCancelListener { chat.showSheet(false) }
    }

    /** Goes without a word to the chat: the screen it belongs to is going too, or the chat said so. */
    fun leave() = dismiss()

    fun show(state: ChatState) {
        val wish = state.wish ?: return
        show(models, state.choices.distinctBy { it.model }.map { it.copy(engine = wish.engine) }, wish) { words.model(it) }
        show(engines, state.choices.filter { it.model == wish.model }, wish) { choice ->
            val reason = state.failures[choice]
            if (reason == null) words.engine(choice) else "${words.engine(choice)}\n${words.unusable(reason)}"
        }
        showFigures(state)
    }

    private fun showFigures(state: ChatState) {
        val card = state.opened
        val lines = listOf(
            R.string.last to words.ms(state.figures.lastMs),
            R.string.median to words.ms(state.figures.percentileMs(MEDIAN)),
            R.string.p95 to words.ms(state.figures.percentileMs(P95)),
            R.string.answers to words.count(state.figures.count),
            R.string.memory to words.bytes(state.memory),
            R.string.artifact to words.bytes(card?.artifactBytes),
            R.string.check to words.check(card),
            R.string.version to words.version(card),
        )
        lines.forEachIndexed { i, (name, value) ->
            val row = child(figures, i, R.layout.figure)
            row.findViewById<TextView>(R.id.name).setText(name)
            row.findViewById<TextView>(R.id.value).text = value
        }
    }

    /** One button for each choice. */
    private fun show(group: RadioGroup, choices: List<Choice>, wish: Choice, name: (Choice) -> String) {
        choices.forEachIndexed { i, choice ->
            val button = child(group, i, R.layout.choice) as RadioButton
            button.text = name(choice)
            button.isChecked = choice == wish
            button.setOnClickListener { chat.choose(choice) }
        }
    }

    private fun child(group: ViewGroup, place: Int, layout: Int): View =
        group.getChildAt(place) ?: layoutInflater.inflate(layout, group, false).also {
            it.id = View.generateViewId()
            group.addView(it)
        }

    private fun keepClear(outside: View, sheet: View) {
        val (padOutside, padSheet) = outside.padder() to sheet.padder()
        outside.setOnApplyWindowInsetsListener { _, insets ->
            val edges = insets.covered()
            padOutside(edges.left, edges.top, edges.right, 0)
            padSheet(0, 0, 0, edges.bottom)
            insets
        }
    }

    private companion object {
        const val MEDIAN = 0.5
        const val P95 = 0.95
    }
}
